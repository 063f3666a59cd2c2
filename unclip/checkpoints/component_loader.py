"""Load the components of one checkpoint: networks, CLIP and schedules."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import nn

from unclip.checkpoints.decoder_copy import DecoderCopy
from unclip.checkpoints.lora import Lora, with_loras
from unclip.checkpoints.networks import (
    ReadTensors,
    build_empty_network,
    class_name,
    load_weights,
    one_line,
    parameter_shapes,
)
from unclip.checkpoints.tensors import Shapes, check_shapes, read_tensors, tensor_shapes
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.models.clip import Clip
from unclip.models.cpu.onednn import pack_convolutions
from unclip.system.files import read_json

Network = TypeVar("Network", bound=nn.Module)


class WeightStore(Protocol):
    """Takes networks without weights, and loads the weights later: `OffloadStore`, or `DeferredStore` in training."""

    def add(self, network: nn.Module, read: ReadTensors, device: torch.device | str) -> nn.Module:
        """Take an empty network, whose weights `read` reads; returns the network."""
        ...


@dataclass(frozen=True)
class ComponentLoader:
    """Loads components of the checkpoint in `folder` onto `device`, in precision `dtype`.

    offload: loads the weights later, one network at a time; None loads all. on_loaded: called after each network.
    loras: added to the weights of the networks that they fit.
    """

    folder: Path
    device: torch.device
    dtype: torch.dtype
    offload: WeightStore | None = None
    on_loaded: Callable[[], None] = lambda: None
    loras: tuple[Lora, ...] = ()

    def load_network(self, component: str, kind: type[Network], small: bool = False) -> Network:
        """The network of a component, with convolutions in channels_last.

        small: keep it in memory even if others are offloaded. Raises CheckpointError for a network that is damaged or
        not of class `kind`.
        """
        folder = self.folder / component
        network = build_empty_network(folder)
        if not isinstance(network, kind):
            found = class_name(network)
            raise CheckpointError(f"{folder} holds a {found}, not a {kind.__name__}; download the checkpoint again")
        shapes = parameter_shapes(network)
        check_shapes(folder, shapes, tensor_shapes(folder))
        self._load(network, self._reader(folder, shapes), small)
        self.on_loaded()
        return network

    def load_copy(self, component: str, base: Network, copy: DecoderCopy, small: bool = False) -> Network:
        """The network of a copy of the decoder, of which `base` is the decoder's network.

        It shares the memory of those tensors that are the decoder's. Where networks are offloaded, they are read again.
        small: as in `load_network`. The LoRA files that fit are added to its own tensors, too.
        """
        if component not in copy.networks:
            return base
        network, own = copy.networks[component], copy.tensors[component]
        shapes = parameter_shapes(network)
        read_own = self._reader(copy.folder, shapes, f"{component}.")
        read_base: ReadTensors = self._reader(self.folder / component, shapes)
        if self.offload is None or small:
            loaded = base.state_dict()
            read_base = lambda names: {name: loaded[name] for name in names}  # noqa: E731
        self._load(network, lambda names: read_base(set(names) - own) | read_own(own.intersection(names)), small)
        return cast(Network, network)

    def _reader(self, folder: Path, shapes: Shapes, prefix: str = "") -> ReadTensors:
        """Reads a network's tensors, changed by the LoRA files that fit. prefix: of their names in the files."""
        read: ReadTensors = partial(read_tensors, folder, self.device, self.dtype, channels_last=True)
        if prefix:
            read = partial(read_submodule, read, prefix)
        return with_loras(read, [lora for lora in self.loras if lora.fits(shapes)])

    def _load(self, network: nn.Module, read: ReadTensors, small: bool) -> None:
        """Load the weights of an empty network, or leave that to `offload`."""
        if self.offload is None or small:
            pack_convolutions(load_weights(network, read, self.device))
        else:
            self.offload.add(network, read, self.device)

    def load_clip(self, clip: Clip, read: ReadTensors) -> Clip:
        """Load the weights of an empty CLIP, in the precision that `read` has; returns it.

        Text and image encoder are offloaded separately.
        """
        if self.offload is None:
            load_weights(clip, read, self.device)
        else:
            for name in ("text", "visual"):
                if (encoder := getattr(clip, name)) is not None:
                    self.offload.add(encoder, partial(read_submodule, read, f"{name}."), self.device)
            clip.load_state_dict(read(["logit_scale"]), strict=False, assign=True)
        self.on_loaded()
        return clip

    def load_prepared(self, network: Network, read: ReadTensors) -> Network:
        """Load the weights of an empty network, in the precision that `read` has; returns it."""
        if self.offload is None:
            load_weights(network, read, self.device)
        else:
            self.offload.add(network, read, self.device)
        self.on_loaded()
        return network

    def load_schedule(
        self, component: str, from_config: Callable[[dict[str, Any]], Schedule] = Schedule.from_config
    ) -> Schedule:
        """The noise schedule in a component's scheduler_config.json, as diffusers writes it.

        Raises CheckpointError for a schedule that is not supported.
        """
        return read_schedule(self.folder / component / "scheduler_config.json", from_config)


def read_schedule(path: Path, from_config: Callable[[dict[str, Any]], Schedule] = Schedule.from_config) -> Schedule:
    """The noise schedule in a scheduler_config.json. Raises CheckpointError for one that is not supported."""
    config = read_json(path)
    try:
        return from_config(config)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {one_line(error)}") from None


def read_submodule(read: ReadTensors, prefix: str, names: Collection[str]) -> dict[str, torch.Tensor]:
    """The tensors `names` of a submodule, whose names in the whole network start with `prefix`."""
    return {name.removeprefix(prefix): tensor for name, tensor in read([prefix + name for name in names]).items()}
