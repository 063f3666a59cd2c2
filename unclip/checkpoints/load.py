"""A name, a folder or a hub id -> a Checkpoint."""

from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from unclip.checkpoints import hub
from unclip.checkpoints.index import INDEX, components
from unclip.checkpoints.layouts.karlo import is_karlo, load_karlo
from unclip.checkpoints.layouts.native import load_own
from unclip.checkpoints.loader import Loader
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.offload import Shelf
from unclip.checkpoints.open_clip_tower import OpenClipTower, is_open_clip_name, open_clip_tower
from unclip.checkpoints.tensors import tensor_shapes
from unclip.errors import CheckpointError
from unclip.inference.callbacks import Progress
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.system.allocator import give_back_large
from unclip.system.choices import check_memory
from unclip.system.device import free_memory
from unclip.system.files import read_json

HEADROOM = 1.5  # of memory over the weights: for activations, and for what else the machine does


def load_checkpoint(
    name: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    memory: str = "high",
    image_encoder: str | Path | None = None,
    progress: Progress | None = None,
) -> UnclipModel:
    """Read a whole checkpoint onto `device`, its denoisers in `dtype`, CLIP in float32. A hub id is fetched.

    image_encoder: what `name` can be too, a checkpoint whose CLIP image tower is used where the other has none; or a
    model of open_clip and its weights, "ViT-L-14/openai".
    memory: "high" keeps all networks there; "low" one at a time, read anew when it is used; "auto" does what the free
    memory allows. progress: told of each network that is loaded. Raises CheckpointError.
    """
    folder = find_checkpoint(name, download=True)
    index = read_json(folder / INDEX)
    parts = components(index)
    mode = check_memory(memory)
    if mode == "auto":
        mode = "high" if weight_bytes(folder, parts, dtype) * HEADROOM < free_memory(device) else "low"
    if mode == "low" and device.type == "cpu":
        give_back_large()
    loader = Loader(folder, device, dtype, Shelf() if mode == "low" else None, counted(progress, folder, parts))
    # From the hub, the name by which it is found there again.
    origin, revision = hub.identity(folder) or (str(index.get("name", folder.name)), None)
    if not is_karlo(index):
        if image_encoder is not None:
            raise CheckpointError(f"{origin} has an image tower of its own: leave the image encoder out")
        found = load_own(index, loader, name=origin, revision=revision)
    else:
        if image_encoder is not None and "image_encoder" in parts:
            raise CheckpointError(f"{origin} has an image tower of its own: leave the image encoder out")
        images = None if image_encoder is None else image_tower(image_encoder)
        found = load_karlo(index, loader, name=origin, revision=revision, images=images)
        found = replace(found, image_encoder=None if images is None else tower_name(images))
    return found if mode == "high" else sparing(found)


def counted(progress: Progress | None, folder: Path, parts: Collection[str]) -> Callable[[], None]:
    """A function to call after each network of a checkpoint, which tells how many there are; so does this, of none."""
    total = sum((folder / part / "config.json").is_file() for part in parts)
    total -= {"text_encoder", "image_encoder"} <= set(parts)  # the towers of one network
    done = count(1)
    if progress is not None:
        progress("loading", 0, total)
    return lambda: None if progress is None else progress("loading", next(done), total)


def sparing(checkpoint: UnclipModel) -> UnclipModel:
    """The same, keeping no memory that was freed for speed."""
    decoder, *upsamplers = (replace(stage, reuse=False) for stage in (checkpoint.decoder, *checkpoint.upsamplers))
    prior = checkpoint.prior
    if isinstance(prior, DiffusionPrior):
        prior = replace(prior, stage=replace(prior.stage, reuse=False))
    return replace(checkpoint, prior=prior, decoder=decoder, upsamplers=tuple(upsamplers))


def image_tower(name: str | Path) -> Path | OpenClipTower:
    """The folder of a checkpoint that has an image tower, or a tower of open_clip. Raises CheckpointError."""
    if is_open_clip_name(str(name)):
        return open_clip_tower(str(name))
    folder = find_checkpoint(name, download=True)
    if not (folder / "image_encoder" / "config.json").is_file():
        raise CheckpointError(f"{name} has no image_encoder; give the repository for variations of the same model")
    return folder


def tower_name(images: Path | OpenClipTower) -> str:
    """A name by which an image tower is found again; of a folder that is not from the hub, the folder's own."""
    if isinstance(images, OpenClipTower):
        return images.name
    known = hub.identity(images)
    return "@".join(known) if known else images.resolve().name


def weight_bytes(folder: Path, parts: dict[str, str], dtype: torch.dtype) -> int:
    """What a checkpoint's weights take in memory: CLIP is kept in float32, everything else in `dtype`."""
    total = 0
    for part in parts:
        if (folder / part / "config.json").is_file():
            values = sum(torch.Size(shape).numel() for shape in tensor_shapes(folder / part).values())
            total += values * (4 if part in ("clip", "text_encoder", "image_encoder") else dtype.itemsize)
    return total
