"""Identify a model and its revision from its files, without loading its weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.checkpoints.families import check_no_prior
from unclip.checkpoints.index import FIX, INDEX, check_pipeline, model_name
from unclip.checkpoints.locate import find_checkpoint
from unclip.errors import CheckpointError, RequestError
from unclip.requests.values import parse_size
from unclip.system.files import read_json
from unclip.system.resources import COMPONENTS

_SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True)
class ModelIdentity:
    """A model without its weights.

    name      as in its model_index.json, else the folder's name
    revision  hash of its files, 16 hexadecimal digits
    sizes     (width, height) of its images in pixels, smallest first; None if the index does not list them
    """

    name: str
    revision: str
    sizes: tuple[tuple[int, int], ...] | None

    @property
    def default_size(self) -> tuple[int, int] | None:
        """(width, height) of images whose request has no size: the first upsampler's, if there is one."""
        return self.sizes[:2][-1] if self.sizes else None


def identify_model(name: str | Path, download: bool = False) -> ModelIdentity:
    """The identity of a model given by name, folder or hub id.

    download: fetch a hub model that is not in the cache. Raises CheckpointError if there is no such model.
    """
    folder = find_checkpoint(name, download=download)
    index = read_json(folder / INDEX)
    check_no_prior(index, str(name))
    check_pipeline(index, folder / INDEX)
    return ModelIdentity(name=model_name(index, folder), revision=compute_revision(folder), sizes=_sizes(index, folder))


def _sizes(index: dict[str, Any], folder: Path) -> tuple[tuple[int, int], ...] | None:
    """(width, height) of the images of each stage in the index. Raises CheckpointError for a size that is none."""
    stages = index.get("stages")
    stages = [stage for stage in stages.values() if isinstance(stage, dict)] if isinstance(stages, dict) else []
    try:
        return tuple(sorted(parse_size(stage["size"]) for stage in stages if "size" in stage)) or None
    except RequestError as error:
        raise CheckpointError(f"{folder / INDEX}: {error}; {FIX}") from None


def compute_revision(folder: Path) -> str:
    """A hash of a checkpoint's JSON and weight files: their sizes, and 64 KiB at start, middle and end of each.

    Training changes every weight, so these samples suffice to tell two checkpoints apart.
    """
    digest = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors") and path.is_file()]
    files = [path for path in files if path.name != COMPONENTS]  # `unclip models components` may add this file later
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            for start in sorted({0, max(0, size // 2), max(0, size - _SAMPLE_BYTES)}):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
