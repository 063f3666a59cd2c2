"""What a checkpoint is made of, and how its parts come into memory."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unclip.checkpoints.networks import Read, empty_network, filled, shapes_of
from unclip.checkpoints.offload import Shelf
from unclip.checkpoints.tensors import check_fit, read_tensors, tensor_shapes
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.models.clip import Clip
from unclip.models.cpu.onednn import pack
from unclip.system.files import read_json


@dataclass(frozen=True)
class Loader:
    """Where a checkpoint's networks lie, and where and in which precision they are wanted.

    shelf: for networks that are not to be in memory together; None keeps all of them there. loaded: called after each.
    """

    folder: Path
    device: torch.device
    dtype: torch.dtype
    shelf: Shelf | None = None
    loaded: Callable[[], None] = lambda: None

    def network(self, component: str, kind: type[nn.Module], small: bool = False) -> Any:
        """A component's network, with its convolutions in channels_last; `small` ones always stay in memory.

        Raises CheckpointError for one that is damaged, or of another kind.
        """
        folder = self.folder / component
        network = empty_network(folder)
        if not isinstance(network, kind):
            found = type(network).__name__
            raise CheckpointError(f"{folder} holds a {found}, not a {kind.__name__}; get the checkpoint anew")
        check_fit(folder, shapes_of(network), tensor_shapes(folder))
        read = partial(read_tensors, folder, self.device, self.dtype, channels_last=True)
        if self.shelf is None or small:
            pack(filled(network, read, self.device))
        else:
            self.shelf.put(network, read, self.device)
        self.loaded()
        return network

    def clip(self, clip: Clip, read: Read) -> Clip:
        """An empty CLIP with its weights, in float32, which costs little; each tower is one network on the shelf."""
        if self.shelf is None:
            filled(clip, read, self.device)
        else:
            for tower in ("text", "visual"):
                if getattr(clip, tower) is not None:
                    self.shelf.put(getattr(clip, tower), partial(below, read, f"{tower}."), self.device)
            clip.load_state_dict(read(["logit_scale"]), strict=False, assign=True)
        self.loaded()
        return clip

    def schedule(self, part: str) -> Schedule:
        """The schedule of a stage, as diffusers writes one. Raises CheckpointError for one that cannot be run."""
        path = self.folder / f"{part}_scheduler" / "scheduler_config.json"
        try:
            return Schedule.from_config(read_json(path))
        except CheckpointError as error:
            raise error if str(path) in str(error) else CheckpointError(f"{path}: {error}") from None


def below(read: Read, prefix: str, names: Collection[str]) -> dict[str, torch.Tensor]:
    """`read` for a part of a network, whose names are given without the prefix that the whole has for them."""
    return {name.removeprefix(prefix): tensor for name, tensor in read([prefix + name for name in names]).items()}
