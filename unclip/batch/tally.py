"""A set of image files as a count and two sums, which tell whether one is missing or has another size."""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from unclip.batch.manifest import PRIVATE
from unclip.images.metadata import FORMATS

_SUFFIXES = tuple(f".{name}".encode() for name in FORMATS)


@dataclass(frozen=True)
class Tally:
    """Files by name and size, in any order and in constant memory. `+` and `-` join and take away disjoint sets.

    count      of files
    bytes      of all together
    checksum   sum of the squares of the CRC-32 of each name and size: a changed file goes unnoticed once in 2^32
    """

    count: int = 0
    bytes: int = 0
    checksum: int = 0

    @classmethod
    def of(cls, name: str, size: int) -> Tally:
        """One file. name: in the folder, with "/" between its parts."""
        return cls(1, size, zlib.crc32(os.fsencode(name), size & 0xFFFFFFFF) ** 2)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.count + other.count, self.bytes + other.bytes, self.checksum + other.checksum)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.count - other.count, self.bytes - other.bytes, self.checksum - other.checksum)


def tally_images(folder: Path, skip: Collection[str] = (), latest: int | None = None) -> Tally | None:
    """The image files in a folder and its subfolders, without its previews.

    skip: names that do not count. latest: None is returned if a file was written after this time, in nanoseconds.
    """
    skipped = {os.fsencode(name) for name in skip}
    count = total = checksum = 0
    for name, entry in _images(folder):  # ten million times, so it is written out
        if name in skipped:
            continue
        try:
            found = entry.stat()
        except FileNotFoundError:  # it has just been removed, or is a link that leads nowhere
            continue
        if latest is not None and found.st_mtime_ns > latest:
            return None
        size = found.st_size
        count += 1
        total += size
        checksum += zlib.crc32(name, size & 0xFFFFFFFF) ** 2
    return Tally(count, total, checksum)


def is_image(name: str) -> bool:
    """Whether a file of a folder counts as an image."""
    return name.encode(errors="replace").lower().endswith(_SUFFIXES) and not _is_own(name.partition("/")[0])


def list_images(folder: Path) -> Iterator[str]:
    """The names of the image files in a folder and its subfolders, without its previews."""
    return (os.fsdecode(name) for name, _ in _images(folder))


def _images(folder: Path) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    waiting = [(b"", os.fsencode(folder))]
    while waiting:
        prefix, path = waiting.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    if prefix or not _is_own(os.fsdecode(name)):
                        waiting.append((prefix + name + b"/", entry.path))
                elif (name.endswith(_SUFFIXES) or name.lower().endswith(_SUFFIXES)) and entry.is_file():
                    yield prefix + name, entry


def _is_own(name: str) -> bool:
    return name.casefold() == PRIVATE or name == "previews" or name.startswith("previews-")
