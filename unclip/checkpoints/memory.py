"""Networks that are not in memory together: for machines that hold one of them, but not all."""

import ctypes
import sys
from collections.abc import Callable

import torch
from torch import nn

from unclip.checkpoints.networks import Read
from unclip.models.packing import pack

SMALL = 1 << 16  # values; what has no more (norms, biases) stays, costs little and tells where its network lives
LARGE = 1 << 20  # bytes
M_MMAP_THRESHOLD = -3  # of mallopt(3)


class Shelf:
    """Holds the weights of one network at a time. Calling a network reads its weights and frees those of the last."""

    def __init__(self) -> None:
        self._large: dict[nn.Module, dict[str, torch.Tensor]] = {}  # what is freed, as tensors without storage
        self._read: dict[nn.Module, Read] = {}
        self._held: nn.Module | None = None

    def put(self, network: nn.Module, read: Read, device: torch.device | str) -> nn.Module:
        """Add an empty network; only what is small of it is read now. Returns it."""
        tensors = network.state_dict()
        self._large[network] = {name: t.to("meta") for name, t in tensors.items() if t.numel() > SMALL}
        self._read[network] = read
        small = tensors.keys() - self._large[network].keys()
        network.load_state_dict(read(small), strict=False, assign=True)
        for module in network.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    module._buffers[name] = buffer.to(device)
        network.register_forward_pre_hook(lambda module, _: self.hold(module))
        return network.eval().requires_grad_(False)

    def hold(self, network: nn.Module) -> None:
        """Have the weights of `network` in memory, and of no other."""
        if network is self._held:
            return
        self.free()
        with torch.inference_mode(False):  # or what is read now could not be used outside of it
            network.load_state_dict(self._read[network](self._large[network].keys()), strict=False, assign=True)
            pack(network)
        self._held = network

    def free(self) -> None:
        """Let go of the weights that are held, if any are."""
        if self._held is not None:
            self._held.load_state_dict(self._large[self._held], strict=False, assign=True)
            self._held = None
            give_back()


def give_back() -> None:
    """Hand memory that was freed back to the system, where the allocators would keep it."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def give_back_large() -> None:
    """From now on, have what is large go back to the system when it is freed, at some cost for what is not so large.

    It is for the whole process, and for good. glibc raises the size from which it does so up to 32 MiB, as large as a
    kernel of the published decoder: these would be left between holes that no other network's fit into. At full size
    that is 600 MiB at the peak.
    """
    if (set_option := _of_glibc("mallopt")) is not None:
        set_option(M_MMAP_THRESHOLD, LARGE)


def _of_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where it is another one, as musl."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
