"""Which device to run on, in which precision, and in how much memory: the answers to "auto"."""

from pathlib import Path

import psutil
import torch

from unclip.errors import InputError
from unclip.system.choices import check_device, check_dtype


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" -> CUDA, else Apple's MPS, else the CPU. Raises InputError for a device this machine lacks."""
    check_device(name)
    present = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if name == "auto":
        return torch.device(next(kind for kind, count in present.items() if count))
    device = torch.device(name)
    if (device.index or 0) >= present[device.type]:
        raise InputError(f"device {name!r} is not available here; use --device cpu or auto")
    return device


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether `device` computes bfloat16 in hardware, rather than by conversion."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 has none
        return any(capabilities.get(flag, False) for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" -> bfloat16 where it is native, else float32; otherwise the dtype of that name."""
    if check_dtype(name) == "auto":
        return torch.bfloat16 if has_native_bfloat16(device) else torch.float32
    return getattr(torch, name)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on `device`: of the GPU, or of the machine within the limit set for this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")  # version 2; a container sees its own limit there
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        told = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        files = int(told.get("inactive_file", 0)) + int(told.get("active_file", 0))  # kept while there is room
    except (OSError, ValueError):  # none, or "max": no limit
        return free
    return max(0, min(free, limit - used + files))
