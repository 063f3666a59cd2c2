"""Keep one network in memory at a time, for machines that hold one of them but not all."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unclip.checkpoints.networks import ReadTensors
from unclip.models.cpu.onednn import pack_convolutions
from unclip.system.allocator import release_free_memory

SMALL = 1 << 16
"""Tensors of up to this many values (norms, biases) stay in memory: they cost little, and show a network's device."""

METHODS = ("forward", "encode", "decode", "encode_tokens")
"""The methods that compute with a network's weights; autoencoders and text encoders have their own."""


class OffloadStore:
    """Holds the weights of one network at a time. Calling a network reads its weights and frees the last one's.

    Calls from several threads take turns, so that none frees the network that another one is running.
    """

    def __init__(self) -> None:
        self._freed: dict[nn.Module, dict[str, torch.Tensor]] = {}  # large tensors of each network, on the meta device
        self._readers: dict[nn.Module, ReadTensors] = {}
        self._loaded: nn.Module | None = None
        self._turn = threading.RLock()

    def add(self, network: nn.Module, read: ReadTensors, device: torch.device | str) -> nn.Module:
        """Manage an empty network, whose weights `read` reads; reads its small tensors now. Returns the network."""
        tensors = network.state_dict()
        small = read([name for name, t in tensors.items() if t.numel() <= SMALL])
        dtype = next((t.dtype for t in small.values() if t.is_floating_point()), None)
        # Callers ask a network for its precision before it is loaded.
        large = {name: t for name, t in tensors.items() if t.numel() > SMALL}
        self._freed[network] = {
            name: t.to("meta", dtype if t.is_floating_point() else None) for name, t in large.items()
        }
        self._readers[network] = read
        network.load_state_dict({**self._freed[network], **small}, strict=False, assign=True)
        for module in network.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if not buffer.is_meta:
                    module._buffers[name] = buffer.to(device)
        for name in METHODS:
            if (method := getattr(network, name, None)) is not None:
                setattr(network, name, self._loading(network, method))
        return network.eval().requires_grad_(False)

    def _loading(self, network: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of `network` that loads its weights first."""

        def load_and_run(*args: object, **options: object) -> object:
            with self._turn:
                self.load(network)
                return method(*args, **options)

        # A copy of the network that shares its weights has to run its own method (see `models.deep_features`).
        load_and_run.for_copy = lambda twin: self._loading(network, getattr(type(twin), method.__name__).__get__(twin))
        return load_and_run

    def load(self, network: nn.Module) -> None:
        """Bring the weights of `network` into memory, after freeing another network's."""
        if network is self._loaded:
            return
        self.free()
        with torch.inference_mode(False):  # inference tensors could not be used outside inference mode
            network.load_state_dict(self._readers[network](self._freed[network].keys()), strict=False, assign=True)
            pack_convolutions(network)
        self._loaded = network

    def free(self) -> None:
        """Free the weights that are loaded, if any."""
        if self._loaded is not None:
            self._loaded.load_state_dict(self._freed[self._loaded], strict=False, assign=True)
            self._loaded = None
            release_cached_memory()


def release_cached_memory() -> None:
    """Return freed memory that the allocators of CUDA and of the C library keep to the system."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    release_free_memory()
