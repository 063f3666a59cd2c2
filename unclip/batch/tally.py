"""A set of image files as a count and a sum of hashes, which tells whether one is missing or has another size."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from unclip.batch.manifest import PRIVATE
from unclip.images.metadata import FORMATS

_BITS = 128
_SUFFIXES = tuple(f".{name}" for name in FORMATS)


@dataclass(frozen=True)
class Tally:
    """Files by name and size, in any order and in constant memory. `+` and `-` join and take away disjoint sets."""

    count: int = 0
    sum: int = 0

    @classmethod
    def of(cls, name: str, size: int) -> Tally:
        """One file. name: in the folder, with "/" between its parts."""
        return cls(1, _hash(name, size))

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, (self.sum + other.sum) % (1 << _BITS))

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.count - other.count, (self.sum - other.sum) % (1 << _BITS))


def tally_images(folder: Path, skip: Collection[str] = (), latest: int | None = None) -> Tally | None:
    """The image files in a folder and its subfolders, without its previews.

    skip: names that do not count. latest: None is returned if a file was written after this time, in nanoseconds.
    """
    count = total = 0
    for name, found in _images(folder):
        if name in skip:
            continue
        if latest is not None and found.st_mtime_ns > latest:
            return None
        count += 1
        total += _hash(name, found.st_size)
    return Tally(count, total % (1 << _BITS))


def list_images(folder: Path) -> Iterator[str]:
    """The names of the image files in a folder and its subfolders, without its previews."""
    return (name for name, _ in _images(folder))


def _images(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    waiting = [("", str(folder))]
    while waiting:
        prefix, path = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if prefix or not _is_own(entry.name):
                        waiting.append((f"{prefix}{entry.name}/", entry.path))
                elif entry.name.lower().endswith(_SUFFIXES):
                    try:
                        found = entry.stat()
                    except FileNotFoundError:  # a link that leads nowhere
                        continue
                    if stat.S_ISREG(found.st_mode):
                        yield prefix + entry.name, found


def _is_own(name: str) -> bool:
    return name.casefold() == PRIVATE or name == "previews" or name.startswith("previews-")


def _hash(name: str, size: int) -> int:
    text = f"{name}\0{size}".encode(errors="backslashreplace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_BITS // 8).digest())
