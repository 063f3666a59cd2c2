"""Choose the device and the precision for "auto", and measure the free memory."""

from pathlib import Path

import psutil
import torch

from unclip.errors import InputError
from unclip.system.choices import check_device, check_dtype
from unclip.system.processes import Processes


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA if present, else Apple's MPS, else the CPU.
    Raises InputError for an unknown name or a device that this machine lacks.
    """
    check_device(name)
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in present.items() if count))
    device = torch.device(name)
    if (device.index or 0) >= present[device.type]:
        raise InputError(f"device {name!r} is not available here; use --device cpu or auto")
    return device


def own_device(name: str, processes: Processes) -> torch.device:
    """The device of one of several processes: a GPU of its own, or the CPU; for one process, that of `pick_device`.

    Raises InputError for a device that they cannot share, and if there are too few GPUs.
    """
    device = pick_device(name)
    if processes.count == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise InputError(f"several processes cannot share the device {name!r}: use --device cuda or cpu")
    gpus, needed = torch.cuda.device_count(), processes.local_count
    if needed > gpus:
        raise InputError(f"{needed} processes on a machine with {gpus} GPUs: start {gpus}, or use --device cpu")
    return torch.device("cuda", processes.local_rank)


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes bfloat16 in hardware rather than by conversion to float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has none
        return any(capabilities.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is bfloat16 if `device` computes it in hardware, else float32."""
    if check_dtype(name) == "auto":
        return torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    return getattr(torch, name)


def free_memory(device: torch.device) -> int:
    """Free memory of `device` in bytes: of the GPU, or of the machine within this process's cgroup limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")  # cgroup version 2, where a container sees its own limit
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        file_cache = int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))  # dropped when needed
    except (OSError, ValueError):  # no cgroup, or "max": no limit
        return free
    return max(0, min(free, limit - used + file_cache))
