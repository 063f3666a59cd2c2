"""Load a whole checkpoint by name, folder or hub id."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from unclip.checkpoints.additions import Additions
from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.distilled import read_distilled, with_distilled
from unclip.checkpoints.families import check_no_prior, is_kandinsky, is_karlo, is_stable_unclip
from unclip.checkpoints.hub_files import snapshot_identity
from unclip.checkpoints.index import INDEX, check_pipeline, component_classes, model_name
from unclip.checkpoints.layouts.kandinsky import load_kandinsky
from unclip.checkpoints.layouts.karlo import load_karlo
from unclip.checkpoints.layouts.native import load_native
from unclip.checkpoints.layouts.stable_unclip import load_stable_unclip
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.lora import Lora, read_lora
from unclip.checkpoints.networks import build_empty_network, config_shapes, parameter_shapes
from unclip.checkpoints.offload import OffloadStore
from unclip.checkpoints.open_clip_image_encoder import (
    OpenClipImageEncoder,
    find_open_clip_image_encoder,
    is_open_clip_name,
)
from unclip.checkpoints.prior_repository import find_prior_configs, find_prior_folders
from unclip.checkpoints.tensors import Shapes, tensor_shapes
from unclip.errors import CheckpointError
from unclip.inference.callbacks import Progress
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.requests.values import show
from unclip.system.allocator import return_large_blocks
from unclip.system.choices import check_memory
from unclip.system.device import free_memory
from unclip.system.files import read_json

OF_PRIOR = ("prior", "text_encoder", "image_encoder")
"""The networks that are used of the repository of a prior; Karlo's has others too."""
HEADROOM = 1.5  # free memory relative to the weights for "high": leaves room for activations and other programs


def load_checkpoint(
    name: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    memory: str = "high",
    additions: Additions = Additions(),  # noqa: B008
    progress: Progress | None = None,
) -> UnclipModel:
    """Load a checkpoint onto `device`, its denoisers in `dtype` and CLIP in float32.

    name: a folder, the name of a bundled model, or a hub id, which is downloaded if it is not in the cache.
    memory: "high" keeps all networks in memory; "low" keeps one and reads each when it is used; "auto" chooses by the
    free memory. progress: called as (stage, done, total) after each network is loaded.
    Raises CheckpointError if the checkpoint is missing, damaged or not in a supported layout.
    """
    loras = tuple(map(read_lora, additions.loras))  # before a download of gigabytes
    folder = find_checkpoint(name, download=True, check=partial(check_loras_by_configs, loras, additions.prior_model))
    index = read_json(folder / INDEX)
    check_no_prior(index, str(name))
    check_pipeline(index, folder / INDEX)
    folders = [folder, *find_prior_folders(folder, index, additions.prior_model)]
    image_encoder = additions.image_encoder
    parts = component_folders(folders)
    check_loras(loras, parts)
    mode = check_memory(memory)
    if mode == "auto":
        mode = "high" if weight_bytes(parts, dtype) * HEADROOM < free_memory(device) else "low"
    if mode == "low" and device.type == "cpu":
        return_large_blocks()
    offload = OffloadStore() if mode == "low" else None
    on_loaded = _count_loaded(progress, parts)
    loader, *others = (ComponentLoader(each, device, dtype, offload, on_loaded, loras) for each in folders)
    model = build_model(index, loader, others, image_encoder)
    prior = None if additions.prior_model is None else repository_name(folders[1])
    model = replace(
        model, prior_name=prior, loras=tuple(lora.name for lora in loras), default_prior=additions.prior_kind
    )
    if additions.prior_kind is not None:
        model.require_prior(additions.prior_kind)
    return model if mode == "high" else without_memory_reuse(model)


def build_model(
    index: dict[str, Any],
    loader: ComponentLoader,
    others: Sequence[ComponentLoader] = (),
    image_encoder: str | Path | None = None,
) -> UnclipModel:
    """The model of a checkpoint of any layout. index: its model_index.json. others: the loader of its prior's folder.

    image_encoder: as in `Additions`. Raises CheckpointError for damaged or mismatched components.
    """
    distilled = read_distilled(index, loader.folder)
    for other in others:  # of a repository of a prior, nothing but the prior is used
        own = read_distilled(read_json(other.folder / INDEX), other.folder)
        distilled |= {name: stage for name, stage in own.items() if name == "prior"}
    return with_distilled(build_layout(index, loader, others, image_encoder), distilled)


def build_layout(
    index: dict[str, Any],
    loader: ComponentLoader,
    others: Sequence[ComponentLoader],
    image_encoder: str | Path | None,
) -> UnclipModel:
    """The model of a checkpoint of any layout, as if none of its stages were distilled. Arguments as `build_model`."""
    # A hub model is named as it is found on the hub.
    origin, revision = snapshot_identity(loader.folder) or (model_name(index, loader.folder), None)
    if image_encoder is not None and not is_karlo(index):
        raise CheckpointError(
            f"{origin} takes no other image encoder, because its CLIP was trained as a whole: leave image_encoder out"
        )
    if image_encoder is not None and "image_encoder" in index:
        raise CheckpointError(f"{origin} has its own image encoder: leave image_encoder out")
    if is_karlo(index):
        encoder = None if image_encoder is None else find_image_encoder(image_encoder)
        model = load_karlo(index, loader, origin, revision, encoder)
        return replace(model, image_encoder=None if encoder is None else image_encoder_name(encoder))
    if is_kandinsky(index):
        return load_kandinsky(index, loader, others[0], origin, revision)
    if is_stable_unclip(index):
        return load_stable_unclip(index, loader, others[0] if others else None, origin, revision)
    return load_native(index, loader, origin, revision)


def without_memory_reuse(model: UnclipModel) -> UnclipModel:
    """The same model, whose stages return freed memory to the system instead of reusing it."""
    decoder, *upsamplers = (replace(stage, reuse=False) for stage in (model.decoder, *model.upsamplers))
    inpainting = None if model.inpainting_decoder is None else replace(model.inpainting_decoder, reuse=False)
    prior = model.prior
    if isinstance(prior, DiffusionPrior):
        prior = replace(prior, stage=replace(prior.stage, reuse=False))
    return replace(model, prior=prior, decoder=decoder, upsamplers=tuple(upsamplers), inpainting_decoder=inpainting)


def find_image_encoder(name: str | Path) -> Path | OpenClipImageEncoder:
    """The folder of a checkpoint with an image encoder, or an image encoder of open_clip. Raises CheckpointError."""
    if is_open_clip_name(str(name)):
        return find_open_clip_image_encoder(str(name))
    folder = find_checkpoint(name, download=True)
    if not (folder / "image_encoder" / "config.json").is_file():
        raise CheckpointError(f"{name} has no image_encoder; give the image variation repository of the same model")
    return folder


def image_encoder_name(encoder: Path | OpenClipImageEncoder) -> str:
    """The name for records: of open_clip, the hub id with its commit, or else the folder's name."""
    if isinstance(encoder, OpenClipImageEncoder):
        return encoder.name
    return repository_name(encoder)


def repository_name(folder: Path) -> str:
    """The name for records of a folder: of the hub, the id with its commit, or else the folder's name."""
    known = snapshot_identity(folder)
    return "@".join(known) if known else folder.resolve().name


def check_loras_by_configs(loras: Sequence[Lora], prior: str | Path | None, folder: Path) -> None:
    """Raise CheckpointError for a LoRA file that fits no network of a checkpoint whose weights are not here yet.

    prior: as in `Additions`. folder: of the checkpoint's configs.
    """
    if not loras:
        return
    folders = [folder]
    if (found := find_prior_configs(folder, read_json(folder / INDEX), prior)) is not None:
        folders.append(found)
    check_loras(loras, component_folders(folders), config_shapes)


def check_loras(
    loras: Sequence[Lora],
    parts: Sequence[Path],
    shapes_of: Callable[[Path], Shapes] = lambda part: parameter_shapes(build_empty_network(part)),
) -> None:
    """Raise CheckpointError for a LoRA file that fits none of the networks in the folders `parts`."""
    named = [part for part in parts if "_class_name" in read_json(part / "config.json")] if loras else []
    shapes = list(map(shapes_of, named))
    for lora in loras:
        if not any(map(lora.fits, shapes)):
            raise CheckpointError(
                f"LoRA {lora.path} changes {show(next(iter(lora.changes)))} and others, which fit no network of this "
                "model: it is of another family or size"
            )


def component_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of all networks of a checkpoint: its own, then the repository of its prior, if that is another."""
    return [
        folder / component
        for folder in folders
        for component in component_classes(read_json(folder / INDEX))
        if (folder / component / "config.json").is_file() and (folder == folders[0] or component in OF_PRIOR)
    ]


def weight_bytes(parts: Sequence[Path], dtype: torch.dtype) -> int:
    """Bytes of the weights of networks, given their folders.

    All are in `dtype`, but for CLIP: this project's and Karlo's is in float32.
    """
    latent = any(part.name == "unet" for part in parts)  # Kandinsky and Stable unCLIP, whose CLIP is large
    exact = () if latent else ("clip", "text_encoder", "image_encoder")
    total = 0
    for part in parts:
        values = sum(torch.Size(shape).numel() for shape in tensor_shapes(part).values())
        total += values * (4 if part.name in exact else dtype.itemsize)
    return total


def _count_loaded(progress: Progress | None, parts: Sequence[Path]) -> Callable[[], None]:
    """A function to call after each loaded network; reports its number to `progress`. Reports 0 at once."""
    names = {part.name for part in parts}
    # CLIP's two encoders are one network. Stable unCLIP's text encoder is not CLIP's, which only comes with a prior.
    has_both = {"text_encoder", "image_encoder"} <= names and ("image_normalizer" not in names or "prior" in names)
    total = len(parts) - has_both
    done = count(1)
    if progress is not None:
        progress("loading", 0, total)
    return lambda: None if progress is None else progress("loading", next(done), total)
