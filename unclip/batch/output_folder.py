"""The output folder of a prompt file: locked by one run at a time, with a manifest of the finished images.

    manifest.jsonl   one line per image, written before its file
    errors.jsonl     one line per line or image that failed in the last run
    .unclip/         the lock, the run's seed, model and names, the name of its contact sheet, damaged lines of the
                     manifest, and files in progress

An image is done if the manifest lists it and its file is as it was written. A run can therefore be killed at any
moment: the next run drops manifest lines without a file, and generates their images again.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import json
import os
import platform
import time
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.batch.folder_check import FolderCheck, mark_checked
from unclip.batch.manifest import MANIFEST, PRIVATE, Entry, read_entries, read_lines
from unclip.errors import InputError, WriteError
from unclip.system.files import check_writable, write_atomic, write_json, write_new
from unclip.system.json_values import parse_json

ERRORS = "errors.jsonl"
GRIDS = {".png": "grid.json", ".html": "grid-page.json"}
"""The records of the contact sheet and of the page that a run wrote, by their suffix."""


@dataclass(frozen=True)
class ImageFile:
    """A finished file and its line in the manifest, which holds at least "key"."""

    name: str
    data: bytes
    entry: dict[str, Any]


class Folder:
    """An output folder that this process has locked. Get one with `open_folder`."""

    def __init__(self, path: Path, *, overwrite: bool = False, verify: bool = False, is_locked: bool = True) -> None:
        self.path = path
        self.notes: list[str] = []  # damage that was found when it was opened
        self._is_locked = is_locked
        self._overwrite = overwrite
        self._verify = verify
        self._scratch = path / PRIVATE / "tmp"
        self._done = array("Q")  # sorted keys: eight bytes per image
        self._names: set[int] = set()  # hashes of the names in the manifest; only kept if other files are overwritten
        self._manifest: Any = None
        self._errors: Any = None

    def is_done(self, key: int) -> bool:
        """Whether the folder had this image, in the manifest and as a file, when it was opened."""
        return self.place(key) is not None

    def place(self, key: int) -> int | None:
        """The place of an image among the `done` ones, from 0, or None."""
        place = bisect_left(self._done, key)
        return place if place < len(self._done) and self._done[place] == key else None

    @property
    def done(self) -> int:
        """The number of images that the folder had when it was opened."""
        return len(self._done)

    def entries(self) -> Iterator[Entry]:
        """The entries of the manifest whose images are done."""
        return (entry for entry in read_entries(self.path) if self.is_done(int(entry.key, 16)))

    def add(self, images: Sequence[ImageFile]) -> list[Path | OSError]:
        """Add images to the manifest, then write their files. A name that is taken becomes name-2, name-3, ...

        Returns the paths, with the error in place of a path that cannot exist, such as one below a file. Raises OSError
        if nothing can be written, for instance to a full disk; the next run generates the missing images again.
        """
        taken: set[str] = set()
        named = [(image, self._free_name(image.name, taken)) for image in images]
        lines = [
            json.dumps({"file": name, **image.entry, "key": f"{image.entry['key']:016x}", **_file_facts(image.data)})
            for image, name in named
        ]
        data = "".join(f"{line}\n" for line in lines).encode()
        if self._manifest.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._manifest.fileno())
        paths: list[Path | OSError] = []
        for image, name in named:
            path = self.path / name
            try:
                write_atomic(path, image.data, overwrite=self._overwrite, scratch=self._scratch)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                paths.append(error)
                continue
            self._remember_name(name)
            paths.append(path)
        return paths

    def write_grid(self, name: str, data: bytes) -> Path:
        """Write the contact sheet of a run, or the page of a sweep. It replaces an earlier run's, and no other file."""
        suffix = Path(name).suffix
        path = find_grid(self.path, suffix)
        if path is None:
            path = write_new(self.path / name, data)
        else:
            write_atomic(path, data)
        write_json(self.path / PRIVATE / GRIDS[suffix], {"file": path.name, "bytes": len(data)})
        return path

    def add_error(self, fields: dict[str, Any]) -> None:
        """Add a line to errors.jsonl. Raises WriteError if it cannot be written."""
        try:
            if self._errors is None:
                self._errors = (self.path / ERRORS).open("wb", buffering=0)
            self._errors.write(json.dumps(fields).encode() + b"\n")
        except OSError as error:
            raise disk_full(error, self.path) from error

    def _free_name(self, name: str, taken: set[str]) -> str:
        """`name`, or the first of name-2, name-3, ... that no file and none of `taken` has. It is added to `taken`."""
        stem, dot, suffix = name.rpartition(".")
        candidate, count = name, 1
        while candidate.casefold() in taken or self._is_taken(candidate):
            count += 1
            candidate = f"{stem}-{count}{dot}{suffix}"
        taken.add(candidate.casefold())
        return candidate

    def _is_taken(self, name: str) -> bool:
        if self._overwrite:  # files of earlier runs are kept
            return hash(name.casefold()) in self._names or (self.path / name).is_dir()
        return os.path.lexists(self.path / name)

    def _remember_name(self, name: str) -> None:
        if self._overwrite:
            self._names.add(hash(name.casefold()))

    def move(self, moves: Mapping[str, Mapping[str, Any]]) -> None:
        """Give finished images to other jobs: the key of each, and the fields of its manifest line that change."""
        self._manifest.close()
        self._write_manifest(
            _line({**parse_json(line, finite=False), **moves[entry.key]}) if entry.key in moves else line
            for line, entry in read_lines(self.path)
            if entry is not None
        )
        changed = {int(key, 16): int(fields["key"], 16) for key, fields in moves.items()}
        self._done = array("Q", sorted(changed.get(key, key) for key in self._done))

    def _open(self) -> None:
        """Remove the leftovers of a killed run, and check the manifest against the images."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for unfinished in self._scratch.iterdir():
            if unfinished.suffix == ".tmp" or unfinished.name == MANIFEST:
                unfinished.unlink()
        (self.path / ERRORS).unlink(missing_ok=True)
        self._write_manifest(self._check())

    def _check(self) -> Iterator[bytes]:
        """Check the images, and yield the lines of the manifest to keep."""
        check = FolderCheck(self.path, self._verify)
        for line, entry in check.kept_lines():
            self._remember_name(entry.file)
            yield line
        for name in check.altered:
            self._remember_name(name)
        self._done = check.keys()
        self.notes = check.notes()
        if self._is_locked:
            check.finish()

    def _write_manifest(self, lines: Iterator[bytes]) -> None:
        """Replace the manifest, atomically, and open it to add lines."""
        path, new = self.path / MANIFEST, self._scratch / MANIFEST
        with new.open("wb") as file:
            file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        if path.exists() and filecmp.cmp(new, path, shallow=False):
            new.unlink()
        else:
            os.replace(new, path)
        self._manifest = path.open("ab", buffering=0)  # a buffer would write again, at close, what a full disk refused

    def _close(self) -> None:
        for file in (self._manifest, self._errors):
            if file is not None:
                file.close()
        with contextlib.suppress(OSError):
            mark_checked(self.path)


def read_folder(path: str | Path, *, verify: bool = False) -> Folder:
    """A folder to look up finished images in. It is not locked, and nothing is written."""
    folder = Folder(Path(path), verify=verify, is_locked=False)
    with contextlib.suppress(OSError):
        deque(folder._check(), maxlen=0)
    return folder


def find_grid(path: str | Path, suffix: str = ".png") -> Path | None:
    """The contact sheet that an earlier run of a folder wrote, or its page; None if it is missing or was changed."""
    try:
        grid = parse_json((Path(path) / PRIVATE / GRIDS[suffix]).read_bytes())
        name = Path(grid["file"]).name
        found = Path(path) / name
        is_grid = name.startswith("grid") and name.endswith(suffix) and not found.is_symlink()
        return found if is_grid and found.stat().st_size == grid["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


@contextlib.contextmanager
def open_folder(path: str | Path, *, overwrite: bool = False, verify: bool = False) -> Iterator[Folder]:
    """Create a folder if necessary, lock it for this process, and check its images.

    overwrite: images may replace files that the manifest does not list. verify: compare the hashes of all images, not
    only of those written since the last check. Raises InputError if the folder cannot be written to or another run has
    locked it.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"-o {str(path)!r} is a file; give a folder")
    if PRIVATE in (part.casefold() for part in path.absolute().parts):
        raise InputError(f"-o {str(path)!r} is among the files of another output folder; give another folder")
    check_writable(path)
    private = path / PRIVATE
    for part in (private, path / MANIFEST, *(private.iterdir() if private.is_dir() else ())):
        if part.is_symlink():
            raise InputError(f"{part} is a link, which may lead out of the folder; give another folder")
    private.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(private / "lock"), private / "owner.json"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{str(path)!r} is in use by {_describe_owner(owner)}; wait for it, or give another folder"
        ) from None
    except OSError as error:  # filelock follows no link, because locking would empty the file behind it
        raise InputError(f"cannot lock {str(path)!r} ({error.strerror}); remove {private / 'lock'}") from None
    try:
        process = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        folder = Folder(path, overwrite=overwrite, verify=verify)
        try:
            try:
                write_atomic(owner, json.dumps(process).encode())
                folder._open()
            except OSError as error:
                raise disk_full(error, path) from error
            yield folder
        finally:
            folder._close()
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def disk_full(error: OSError, folder: Path) -> WriteError:
    """A system error while an image was written, as a WriteError of one line."""
    reason = error.strerror or str(error)
    fix = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "fix that"
    return WriteError(f"cannot write into {str(folder)!r} ({reason}); {fix}, and run the same command again")


def _describe_owner(path: Path) -> str:
    try:
        process = parse_json(path.read_bytes())
        pid, host, since = (str(process[name])[:60] for name in ("pid", "host", "since"))
        return f"process {pid} on {host} since {since}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run"


def _file_facts(data: bytes) -> dict[str, Any]:
    """The size and the hash of a file, for its manifest line."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _line(fields: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(fields)}\n".encode()
