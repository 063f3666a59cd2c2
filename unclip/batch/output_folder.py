"""The output folder of a prompt file: locked by one run at a time, with a manifest of the finished images.

    manifest.jsonl   one line per image, written before its file
    errors.jsonl     one line per line or image that failed in the last run
    .unclip/         the lock, the run's seed, model and names, its progress, the name of its contact sheet, damaged
                     lines of the manifest, and files in progress

An image is done if the manifest lists it and its file is as it was written. A run can therefore be killed at any
moment: the next run drops manifest lines without a file, and generates their images again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from unclip.batch.folder_check import FolderCheck, last_check, mark_checked
from unclip.batch.manifest import MANIFEST, PRIVATE, Entry, read_entries, read_lines
from unclip.batch.tally import Tally, tally_images
from unclip.errors import InputError, WriteError
from unclip.system.files import check_writable, write_atomic, write_json, write_new
from unclip.system.json_values import parse_json

ERRORS = "errors.jsonl"
PROGRESS = "progress.json"
"""The progress of the run, and the state of the folder when it was saved."""
GRIDS = {".png": "grid.json", ".html": "grid-page.json"}
"""The records of the contact sheet and of the page that a run wrote, by their suffix."""


@dataclass(frozen=True)
class ImageFile:
    """A finished file and its line in the manifest, which holds at least "key"."""

    name: str
    data: bytes
    entry: dict[str, Any]


class SavedState(BaseModel):
    """The state of a folder when its run saved its progress: the bytes of the manifest, and their hash, and the images.

    images    that these lines of the manifest list, as [count, sum of the hashes]; others: all other images there
    run       the progress of the run, as it was given to `Folder.save`
    """

    model_config = ConfigDict(frozen=True, strict=True)

    bytes: int
    sha256: str
    images: list[int]
    others: list[int]
    run: dict[str, Any]


class Folder:
    """An output folder that this process has locked. Get one with `open_folder`."""

    def __init__(self, path: Path, *, overwrite: bool = False, verify: bool = False, is_locked: bool = True) -> None:
        self.path = path
        self.notes: list[str] = []  # damage that was found when it was opened
        self.saved: dict[str, Any] | None = None
        """The progress that the last run saved; None unless all of its images are there as they were."""
        self.recent: list[int] = []
        """The keys of the images that were added after that."""
        self._is_locked = is_locked
        self._overwrite = overwrite
        self._verify = verify
        self._scratch = path / PRIVATE / "tmp"
        self._bad_lines = path / PRIVATE / "bad-lines.jsonl"
        self._done: array[int] | None = None  # sorted keys: eight bytes per image; None until they are needed
        self._names: set[int] = set()  # hashes of the names in the manifest; only kept if other files are overwritten
        self._manifest: Any = None
        self._errors: Any = None
        self._images = Tally()  # in the manifest
        self._others: Tally | None = None  # other images in the folder; None if the progress is not saved
        self._hash = hashlib.sha256()  # of the manifest, with its size
        self._size = 0
        self._is_consistent = True  # each image of the manifest has its file

    def is_done(self, key: int) -> bool:
        """Whether the folder had this image, in the manifest and as a file, when it was opened."""
        return self.place(key) is not None

    def place(self, key: int) -> int | None:
        """The place of an image among the `done` ones, from 0, or None."""
        keys = self._done_keys()
        place = bisect_left(keys, key)
        return place if place < len(keys) and keys[place] == key else None

    @property
    def done(self) -> int:
        """The number of images that the folder had when it was opened."""
        return len(self._done_keys())

    def _done_keys(self) -> array[int]:
        if self._done is None:
            self._done = FolderCheck(self.path, verify=False).keys()
        return self._done

    def entries(self) -> Iterator[Entry]:
        """The entries of the manifest whose images are done."""
        return (entry for entry in read_entries(self.path) if self.is_done(int(entry.key, 16)))

    def resume(self, keys: Iterable[int]) -> None:
        """Take the saved progress for true: only images with these keys are looked up."""
        self._done = array("Q", sorted(keys))

    def forget(self) -> None:
        """Drop the saved progress, which is that of another run."""
        self.saved = None
        if self._is_locked:
            (self.path / PRIVATE / PROGRESS).unlink(missing_ok=True)

    def begin_saving(self) -> None:
        """Look at what the folder holds, so that `save` can be called from now on. Before the first image is added."""
        if self._overwrite:  # files that are not in the manifest change, too
            return
        if self._others is None:
            found = tally_images(self.path, self._grids())
            self._others = None if found is None else found - self._images
        with (self.path / MANIFEST).open("rb") as manifest:
            manifest.seek(self._size)
            while data := manifest.read(1 << 20):
                self._hash.update(data)
                self._size += len(data)

    def save(self, run: dict[str, Any]) -> None:
        """Save the progress of the run, and the state of the folder to which it belongs."""
        if self._others is None or not self._is_consistent:
            return
        mark_checked(self.path)  # the images were written by this run
        state = SavedState(
            bytes=self._size,
            sha256=self._hash.hexdigest(),
            images=[self._images.count, self._images.sum],
            others=[self._others.count, self._others.sum],
            run=run,
        )
        write_atomic(self.path / PRIVATE / PROGRESS, state.model_dump_json().encode(), scratch=self._scratch)

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
        was_consistent, self._is_consistent = self._is_consistent, False
        if self._manifest.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._manifest.fileno())
        self._hash.update(data)
        self._size += len(data)
        paths: list[Path | OSError] = []
        for image, name in named:
            path = self.path / name
            try:
                write_atomic(path, image.data, overwrite=self._overwrite, scratch=self._scratch)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                paths.append(error)
                continue
            self._remember_name(name)
            self._images += Tally.of(name, len(image.data))
            paths.append(path)
        # A line without its file is removed by the next run, which must find it after the saved progress.
        self._is_consistent = was_consistent and all(isinstance(path, Path) for path in paths)
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

    def keep_bad_lines(self) -> None:
        """Keep errors.jsonl, which has the bad lines of the prompt file, for runs that do not check it again."""
        source = self.path / ERRORS
        write_atomic(self._bad_lines, source.read_bytes() if source.exists() else b"", scratch=self._scratch)

    def bad_lines(self) -> Iterator[dict[str, Any]]:
        """The bad lines of the prompt file that an earlier run has kept. Raises OSError and ValueError for damage."""
        with self._bad_lines.open("rb") as lines:
            for line in lines:
                yield parse_json(line)

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
        self._replace_manifest(
            _line({**parse_json(line, finite=False), **moves[entry.key]}) if entry.key in moves else line
            for line, entry in read_lines(self.path)
            if entry is not None
        )
        self._open_manifest()
        changed = {int(key, 16): int(fields["key"], 16) for key, fields in moves.items()}
        self._done = array("Q", sorted(changed.get(key, key) for key in self._done_keys()))

    def _open(self) -> None:
        """Remove the leftovers of a killed run, and check the manifest against the images."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for unfinished in self._scratch.iterdir():
            if unfinished.suffix == ".tmp" or unfinished.name == MANIFEST:
                unfinished.unlink()
        (self.path / ERRORS).unlink(missing_ok=True)
        check = self._check()
        check.finish()
        self._mend_manifest(check)
        self._open_manifest()

    def _check(self) -> FolderCheck:
        """Check the images: those of the saved progress all together, the others one by one."""
        check = None if self._verify or self._overwrite else self._check_saved()
        if check is None:
            check = FolderCheck(self.path, self._verify, seen=lambda entry: self._remember_name(entry.file))
            self._done = check.keys()
            self._images = check.images
        for name in check.altered:
            self._remember_name(name)
        self.notes = check.notes()
        return check

    def _check_saved(self) -> FolderCheck | None:
        """Compare the folder with the state of the saved progress. None unless all is there as it was."""
        try:
            state = SavedState.model_validate_json((self.path / PRIVATE / PROGRESS).read_bytes())
            images, others = Tally(*state.images), Tally(*state.others)
            if not self._hash_manifest(state):
                return None
            time = last_check(self.path)
            recent: list[Entry] = []
            check = FolderCheck(self.path, verify=False, start=state.bytes, seen=recent.append)
            skip = {*self._grids(), *(entry.file for entry in recent), *check.altered}
            found = tally_images(self.path, skip, latest=time)
        except (OSError, ValueError, TypeError):
            return None
        if found != images + others:
            return None
        self.saved, self.recent = state.run, [int(entry.key, 16) for entry in recent]
        self._images, self._others = images + check.images, others
        return check

    def _hash_manifest(self, state: SavedState) -> bool:
        """Hash the manifest as far as a saved state goes; returns whether it is as it was."""
        hash, left = hashlib.sha256(), state.bytes
        with (self.path / MANIFEST).open("rb") as manifest:
            while left and (data := manifest.read(min(left, 1 << 20))):
                hash.update(data)
                left -= len(data)
        if left or hash.hexdigest() != state.sha256:
            return False
        self._hash, self._size = hash, state.bytes
        return True

    def _grids(self) -> set[str]:
        """The names of the contact sheets in the folder."""
        return {path.name for suffix in GRIDS if (path := find_grid(self.path, suffix)) is not None}

    def _mend_manifest(self, check: FolderCheck) -> None:
        """Remove the lines that a check has dropped, atomically."""
        path, dropped = self.path / MANIFEST, check.dropped
        if len(dropped) == 1 and dropped[0][1] == check.size:  # a killed run leaves them at the end
            with path.open("r+b") as file:
                file.truncate(dropped[0][0])
                os.fsync(file.fileno())
        elif dropped:
            self._replace_manifest(_without(path, dropped))
        elif check.is_cut_off:
            with path.open("ab") as file:
                file.write(b"\n")

    def _replace_manifest(self, lines: Iterable[bytes]) -> None:
        new = self._scratch / MANIFEST
        with new.open("wb") as file:
            file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path / MANIFEST)
        self._hash, self._size = hashlib.sha256(), 0

    def _open_manifest(self) -> None:
        path = self.path / MANIFEST
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
        folder._check()
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


def _without(path: Path, dropped: Sequence[Sequence[int]]) -> Iterator[bytes]:
    """The lines of a file but those that begin in these ranges of bytes, which are in order."""
    place, ranges = 0, iter([*dropped, (math.inf, math.inf)])
    first, end = next(ranges)
    with path.open("rb") as file:
        for line in file:
            if place >= end:
                first, end = next(ranges)
            if place < first:
                yield line
            place += len(line)


def _line(fields: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(fields)}\n".encode()
