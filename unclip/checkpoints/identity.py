"""Which model, and which revision of it: told from its files, without loading them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from unclip.checkpoints.index import INDEX
from unclip.checkpoints.locate import find_checkpoint
from unclip.requests.values import parse_size
from unclip.system.files import read_json
from unclip.system.resources import COMPONENTS

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Model:
    """name, as its index has it; revision, 16 hexadecimal digits; (width, height) it makes, None if not told there."""

    name: str
    revision: str
    sizes: tuple[tuple[int, int], ...] | None


def identify(name: str | Path, download: bool = False) -> Model:
    """The model that a name or a folder stands for; a hub's is fetched if that is asked for. Raises CheckpointError."""
    folder = find_checkpoint(name, download=download)
    index = read_json(folder / INDEX)
    stages = index.get("stages")
    sizes = [stage["size"] for stage in stages.values() if "size" in stage] if isinstance(stages, dict) else []
    return Model(
        name=str(index.get("name", folder.name)),
        revision=revision(folder),
        sizes=tuple(map(parse_size, sizes)) or None,
    )


def revision(folder: Path) -> str:
    """A hash of the files of a checkpoint: of large ones the size, and 64 KiB at the start, middle and end.

    Training changes every weight, so that no more need be read.
    """
    digest = hashlib.sha256()
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors") and path.is_file()]
    files = [path for path in files if path.name != COMPONENTS]  # which `models components` may add at any time
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            for start in sorted({0, max(0, size // 2), max(0, size - _BLOCK)}):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]
