"""Networks that are not in memory together: for machines that hold one of them, but not all."""

import threading

import torch
from torch import nn

from unclip.checkpoints.networks import Read
from unclip.models.cpu.onednn import pack
from unclip.system.allocator import trim

SMALL = 1 << 16  # values; what has no more (norms, biases) stays, costs little and tells where its network lives


class Shelf:
    """Holds the weights of one network at a time. Calling a network reads its weights and frees those of the last.

    Threads take turns: none frees the network that another one is running.
    """

    def __init__(self) -> None:
        self._large: dict[nn.Module, dict[str, torch.Tensor]] = {}  # what is freed, as tensors without storage
        self._read: dict[nn.Module, Read] = {}
        self._held: nn.Module | None = None
        self._turn = threading.RLock()

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
        forward = network.forward

        def in_turn(*args: object, **options: object) -> object:
            with self._turn:
                self.hold(network)
                return forward(*args, **options)

        network.forward = in_turn
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
    trim()
