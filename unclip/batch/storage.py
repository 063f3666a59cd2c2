"""Where the images of an output folder are: a folder of this machine, or one behind a URL (`remote_storage`)."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

from unclip.batch.manifest import PRIVATE, Entry
from unclip.batch.tally import Tally, list_images, tally_images
from unclip.errors import WriteError
from unclip.system.files import write_atomic

Condition = Literal["done", "missing", "altered"]


class Storage(Protocol):
    """The images of an output folder. Its manifest and its other files are in a folder of this machine.

    The last three methods are called when those have changed. Names have "/" between their parts.
    """

    def where(self, name: str) -> str:
        """The path or URL of a file, for messages."""
        ...

    def is_taken(self, name: str, *, replace: bool) -> bool:
        """Whether no image can be written under this name. replace: another file may be replaced."""
        ...

    def write(self, images: Sequence[tuple[str, bytes]], *, replace: bool) -> list[OSError | None]:
        """Write files, each atomically; returns the error of each name that cannot exist, such as one below a file.

        Raises OSError if nothing can be written.
        """
        ...

    def condition(self, entry: Entry, checked: int, verify: bool) -> Condition:
        """Compare an image with its entry, as `folder_check.check_image` does."""
        ...

    def names(self) -> Iterator[str]:
        """The names of all image files."""
        ...

    def tally(self, skip: Collection[str], latest: int | None = None) -> Tally | None:
        """All image files, as `tally.tally_images` counts them."""
        ...

    def free(self) -> int | None:
        """Bytes that can be written; None if that is unknown."""
        ...

    def added(self, lines: bytes) -> None:
        """Lines were added to the manifest: they must be kept before the method returns."""
        ...

    def replaced(self) -> None:
        """The manifest was replaced."""
        ...

    def sync(self) -> None:
        """Files other than the manifest may have changed."""
        ...


class LocalStorage:
    """An output folder on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def where(self, name: str) -> str:
        return str(self._path / name)

    def is_taken(self, name: str, *, replace: bool) -> bool:
        return (self._path / name).is_dir() if replace else os.path.lexists(self._path / name)

    def write(self, images: Sequence[tuple[str, bytes]], *, replace: bool) -> list[OSError | None]:
        errors: list[OSError | None] = []
        for name, data in images:
            try:
                write_atomic(self._path / name, data, overwrite=replace, scratch=self._path / PRIVATE / "tmp")
                errors.append(None)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                errors.append(error)
        return errors

    def condition(self, entry: Entry, checked: int, verify: bool) -> Condition:
        return check_image(self._path, entry, checked, verify)

    def names(self) -> Iterator[str]:
        return list_images(self._path)

    def tally(self, skip: Collection[str], latest: int | None = None) -> Tally | None:
        return tally_images(self._path, skip, latest)

    def free(self) -> int | None:
        return shutil.disk_usage(self._path).free

    def added(self, lines: bytes) -> None:
        """Nothing is to do: the manifest is the folder's own."""

    replaced = sync = lambda self: None


def disk_full(error: OSError, folder: str | Path) -> WriteError:
    """A system error while an image was written, as a WriteError of one line."""
    reason = error.strerror or str(error)
    fix = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "fix that"
    return WriteError(f"cannot write into {str(folder)!r} ({reason}); {fix}, and run the same command again")


def check_image(folder: Path, entry: Entry, checked: int, thorough: bool) -> Condition:
    """Compare an image with its entry: by its size, and by its hash if it was written after the last check.

    checked: time of the last check, in nanoseconds. thorough: always compare the hash, and the hash of
    the pixels where an entry has no other.
    """
    path = folder / entry.file
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):  # reading from a pipe would not end
            return "missing"
        if found.st_size != entry.bytes:
            return "altered"
        if entry.sha256 is not None:
            recent = found.st_mtime_ns > checked
            return "altered" if (recent or thorough) and _file_hash(path) != entry.sha256 else "done"
        return "altered" if thorough and not _has_pixels(path, entry.pixels) else "done"
    except (OSError, ValueError):
        return "missing"


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_pixels(path: Path, pixels: str | None) -> bool:
    """Whether the file can be decoded and, if its format is lossless, has the pixels of this hash."""
    from PIL import Image

    from unclip.images.metadata import FORMATS, pixel_hash

    try:
        with Image.open(path, formats=tuple(set(FORMATS.values()))) as image:
            image.load()
            return image.format != "PNG" or pixels is None or pixel_hash(image) == pixels
    except Exception:  # a damaged file makes Pillow raise nearly anything
        return False
