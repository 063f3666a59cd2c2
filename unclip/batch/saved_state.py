"""The state of an output folder when its run saved its progress, so that the next run need not check every image."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

PROGRESS = "progress.json"
"""The progress of the run, and the state of the folder when it was saved."""


class SavedState(BaseModel):
    """The state of a folder when its run saved its progress: the bytes of the manifest, and their hash, and the images.

    images    that these lines of the manifest list, as a Tally; others: all other images there
    run       the progress of the run, as it was given to `Folder.save`
    """

    model_config = ConfigDict(frozen=True, strict=True)

    bytes: int
    sha256: str
    images: list[int]
    others: list[int]
    run: dict[str, Any]


class Digest:
    """The size and the hash of a manifest, as far as it was read or written."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Add the bytes that follow."""
        self._hash.update(data)
        self.size += len(data)

    def read_on(self, manifest: Path, end: int | None = None) -> None:
        """Add the bytes of the file that follow, up to the place `end` or all of them."""
        with manifest.open("rb") as file:
            file.seek(self.size)
            while (end is None or self.size < end) and (
                data := file.read(1 << 20 if end is None else min(end - self.size, 1 << 20))
            ):
                self.update(data)

    def hex(self) -> str:
        """The SHA-256 of these bytes."""
        return self._hash.hexdigest()
