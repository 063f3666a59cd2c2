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
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from unclip.batch.error_file import ErrorFile
from unclip.batch.folder_check import FolderCheck, last_check, mark_checked
from unclip.batch.grid_file import GRIDS, find_grid
from unclip.batch.manifest import (
    MANIFEST,
    PRIVATE,
    Entry,
    mend_manifest,
    read_entries,
    read_lines,
    replace_manifest,
)
from unclip.batch.saved_state import PROGRESS, Digest, SavedState
from unclip.batch.storage import LocalStorage, Storage
from unclip.batch.tally import Tally
from unclip.system.files import write_atomic
from unclip.system.json_values import parse_json


@dataclass(frozen=True)
class ImageFile:
    """A finished file and its line in the manifest, which holds at least "key"."""

    name: str
    data: bytes
    entry: dict[str, Any]


class Folder:
    """An output folder that this process has locked. Get one with `open_folder.open_folder`.

    path: of the manifest and of the other files. storage: has the images, by default in the same folder.
    """

    def __init__(
        self,
        path: Path,
        storage: Storage | None = None,
        *,
        overwrite: bool = False,
        verify: bool = False,
        is_locked: bool = True,
    ) -> None:
        self.path = path
        self.storage = LocalStorage(path) if storage is None else storage
        self.errors = ErrorFile(path, self.name)
        self.notes: list[str] = []  # damage that was found when it was opened
        self.saved: dict[str, Any] | None = None
        """The progress that the last run saved; None unless all of its images are there as they were."""
        self.recent: list[int] = []
        """The keys of the images that were added after that."""
        self._is_locked = is_locked
        self._overwrite = overwrite
        self._verify = verify
        self._scratch = path / PRIVATE / "tmp"
        self._done: array[int] | None = None  # sorted keys: eight bytes per image; None until they are needed
        self._names: set[int] = set()  # hashes of the names in the manifest; only kept if other files are overwritten
        self._manifest: Any = None
        self._images = Tally()  # in the manifest
        self._others: Tally | None = None  # other images in the folder; None if the progress is not saved
        self._digest = Digest()  # of the manifest
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
            self._done = FolderCheck(self.path, self.storage, verify=False).keys()
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
            with contextlib.suppress(OSError):  # a subfolder that cannot be read
                found = self.storage.tally(self._grids())
                self._others = None if found is None else found - self._images
        self._digest.read_on(self.path / MANIFEST)

    def save(self, run: dict[str, Any]) -> None:
        """Save the progress of the run, and the state of the folder to which it belongs."""
        if self._others is None or not self._is_consistent:
            return
        mark_checked(self.path)  # the images were written by this run
        state = SavedState(
            bytes=self._digest.size,
            sha256=self._digest.hex(),
            images=list(astuple(self._images)),
            others=list(astuple(self._others)),
            run=run,
        )
        write_atomic(self.path / PRIVATE / PROGRESS, state.model_dump_json().encode(), scratch=self._scratch)
        self.storage.sync()

    def add(self, images: Sequence[ImageFile]) -> list[str | OSError]:
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
        self._digest.update(data)
        self.storage.added(data)
        errors = self.storage.write([(name, image.data) for image, name in named], replace=self._overwrite)
        for (image, name), error in zip(named, errors, strict=True):
            if error is None:
                self._remember_name(name)
                self._images += Tally.of(name, len(image.data))
        # A line without its file is removed by the next run, which must find it after the saved progress.
        self._is_consistent = was_consistent and not any(errors)
        return [self.where(name) if error is None else error for (_, name), error in zip(named, errors, strict=True)]

    @property
    def name(self) -> str:
        """Its path or URL, for messages."""
        return self.where("").rstrip("/")

    def where(self, name: str) -> str:
        """The path or URL of a file, for messages."""
        return self.storage.where(name)

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
        is_ours = self._overwrite and hash(name.casefold()) in self._names  # files of earlier runs are kept
        return is_ours or self.storage.is_taken(name, replace=self._overwrite)

    def _remember_name(self, name: str) -> None:
        if self._overwrite:
            self._names.add(hash(name.casefold()))

    def move(self, moves: Mapping[str, Mapping[str, Any]]) -> None:
        """Give finished images to other jobs: the key of each, and the fields of its manifest line that change."""
        self._manifest.close()
        lines = (
            _line({**parse_json(line, finite=False), **moves[entry.key]}) if entry.key in moves else line
            for line, entry in read_lines(self.path)
            if entry is not None
        )
        replace_manifest(self.path, lines)
        self._digest = Digest()
        self._open_manifest()
        self.storage.replaced()
        changed = {int(key, 16): int(fields["key"], 16) for key, fields in moves.items()}
        self._done = array("Q", sorted(changed.get(key, key) for key in self._done_keys()))

    def open(self) -> None:
        """Remove the leftovers of a killed run, and check the manifest against the images."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for unfinished in self._scratch.iterdir():
            if unfinished.suffix == ".tmp" or unfinished.name == MANIFEST:
                unfinished.unlink()
        self.errors.remove()
        check = self._check()
        check.finish()
        self.storage.sync()
        if check.dropped and check.dropped[0][0] < self._digest.size:
            self._digest = Digest()
        mend_manifest(self.path, check.dropped, check.size, check.is_cut_off)
        self._open_manifest()
        self.storage.replaced()

    def look(self) -> None:
        """Check the images without writing anything."""
        self._check()

    def _check(self) -> FolderCheck:
        """Check the images: those of the saved progress all together, the others one by one."""
        check = None if self._verify or self._overwrite else self._check_saved()
        if check is None:
            check = FolderCheck(
                self.path, self.storage, self._verify, seen=lambda entry: self._remember_name(entry.file)
            )
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
            digest = Digest()
            digest.read_on(self.path / MANIFEST, state.bytes)
            if (digest.size, digest.hex()) != (state.bytes, state.sha256):
                return None
            self._digest = digest
            time = last_check(self.path)
            recent: dict[str, int] = {}  # name -> key

            def remember(entry: Entry) -> None:
                recent[entry.file] = int(entry.key, 16)

            check = FolderCheck(self.path, self.storage, verify=False, start=state.bytes, seen=remember)
            skip = {*self._grids(), *recent, *check.altered}
            found = self.storage.tally(skip, latest=time)
        except (OSError, ValueError, TypeError):
            return None
        if found != images + others:
            return None
        self.saved, self.recent = state.run, list(recent.values())
        self._images, self._others = images + check.images, others
        return check

    def _grids(self) -> set[str]:
        """The names of the contact sheets in the folder."""
        return {path.name for suffix in GRIDS if (path := find_grid(self.path, suffix)) is not None}

    def _open_manifest(self) -> None:
        path = self.path / MANIFEST
        self._manifest = path.open("ab", buffering=0)  # a buffer would write again, at close, what a full disk refused

    def close(self) -> None:
        """Close the files, and remember that the images are as the manifest says."""
        self.errors.close()
        if self._manifest is not None:
            self._manifest.close()
        with contextlib.suppress(OSError):
            mark_checked(self.path)
            self.storage.replaced()
            self.storage.sync()


def _file_facts(data: bytes) -> dict[str, Any]:
    """The size and the hash of a file, for its manifest line."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _line(fields: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(fields)}\n".encode()
