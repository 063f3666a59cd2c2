"""The output folder of a prompt file: locked by one run at a time, with a manifest of the finished images.

    manifest.jsonl   one line per image, written before its file
    errors.jsonl     one line per line or image that failed in the last run
    .unclip/         the lock, the run's seed, model and names, the name of its contact sheet, and files in progress

An image is done if the manifest lists it and a file of the listed length exists. A run can therefore be killed at any
moment: the next run drops manifest lines without a file, and generates their images again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import platform
import secrets
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import InputError, WriteError
from unclip.system.files import check_writable, write_atomic, write_json, write_new
from unclip.version import __version__

MANIFEST, ERRORS, PRIVATE, GRID = "manifest.jsonl", "errors.jsonl", ".unclip", "grid.json"


@dataclass(frozen=True)
class ImageFile:
    """A finished file and its line in the manifest, which holds at least "key"."""

    name: str
    data: bytes
    entry: dict[str, Any]


class Folder:
    """An output folder that this process has locked. Get one with `open_folder`."""

    def __init__(self, path: Path, overwrite: bool) -> None:
        self.path = path
        self._overwrite = overwrite
        self._scratch = path / PRIVATE / "tmp"
        self._done = array("Q")  # sorted keys: eight bytes per image
        self._names: set[int] = set()  # hashes of the names in the manifest; only kept if other files are overwritten
        self._manifest: Any = None
        self._errors: Any = None

    def is_done(self, key: int) -> bool:
        """Whether the folder had this image, in the manifest and as a file, when it was opened."""
        place = bisect_left(self._done, key)
        return place < len(self._done) and self._done[place] == key

    @property
    def done(self) -> int:
        """The number of images that the folder had when it was opened."""
        return len(self._done)

    def add(self, images: Sequence[ImageFile]) -> list[Path | OSError]:
        """Add images to the manifest, then write their files. A name that is taken becomes name-2, name-3, ...

        Returns the paths, with the error in place of a path that cannot exist, such as one below a file. Raises OSError
        if nothing can be written, for instance to a full disk; the next run generates the missing images again.
        """
        taken: set[str] = set()
        named = [(image, self._free_name(image.name, taken)) for image in images]
        lines = [
            json.dumps({"file": name, **image.entry, "key": f"{image.entry['key']:016x}", "bytes": len(image.data)})
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
        """Write the contact sheet of a run. It replaces the one of an earlier run of this folder, and no other file."""
        path = find_grid(self.path)
        if path is None:
            path = write_new(self.path / name, data)
        else:
            write_atomic(path, data)
        write_json(self.path / PRIVATE / GRID, {"file": path.name, "bytes": len(data)})
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

    def _open(self) -> None:
        """Remove the leftovers of a killed run, and read the keys of the finished images."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for unfinished in self._scratch.iterdir():
            unfinished.unlink()
        (self.path / ERRORS).unlink(missing_ok=True)
        path = self.path / MANIFEST
        kept, lost = self._scratch / "manifest", False
        keys = []
        if path.exists():
            with path.open("rb") as old, kept.open("wb") as new:
                for line in old:
                    entry = self._parse_entry(line)
                    if entry is None:
                        lost = True
                        continue
                    new.write(line)
                    keys.append(int(entry["key"], 16))
                    self._remember_name(entry["file"])
                new.flush()
                os.fsync(new.fileno())
            if lost:
                os.replace(kept, path)
            else:
                kept.unlink()
        self._done = array("Q", sorted(keys))
        self._manifest = path.open("ab", buffering=0)  # a buffer would write again, at close, what a full disk refused

    def _parse_entry(self, line: bytes) -> dict[str, Any] | None:
        """A line of the manifest; None if it is incomplete or its file is missing or incomplete."""
        try:
            entry = json.loads(line)
            size = os.stat(self.path / entry["file"]).st_size
            complete = line.endswith(b"\n") and size == entry["bytes"] and 0 <= int(entry["key"], 16) < 1 << 64
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return None
        return entry if complete else None

    def _close(self) -> None:
        for file in (self._manifest, self._errors):
            if file is not None:
                file.close()


def read_folder(path: str | Path) -> Folder:
    """A folder to look up finished images in. It is not locked, and nothing is written."""
    folder = Folder(Path(path), overwrite=False)
    with contextlib.suppress(OSError), (folder.path / MANIFEST).open("rb") as manifest:
        keys = array("Q", (int(entry["key"], 16) for line in manifest if (entry := folder._parse_entry(line))))
        folder._done = array("Q", sorted(keys))
    return folder


def find_grid(path: str | Path) -> Path | None:
    """The contact sheet that an earlier run of a folder wrote; None if it is missing or was changed."""
    try:
        grid = json.loads((Path(path) / PRIVATE / GRID).read_bytes())
        found = Path(path) / Path(grid["file"]).name
        return found if found.stat().st_size == grid["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


@contextlib.contextmanager
def open_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Folder]:
    """Create a folder if necessary, and lock it for this process.

    overwrite: images may replace files that the manifest does not list. Raises InputError if the folder cannot be
    written to or another run has locked it.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"-o {str(path)!r} is a file; give a folder")
    check_writable(path)
    private = path / PRIVATE
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
        folder = Folder(path, overwrite)
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


def run_seed(
    path: str | Path,
    given: int | None,
    model: ModelIdentity,
    *,
    write: bool = True,
    naming: Mapping[str, str | None] | None = None,
) -> tuple[int, list[str]]:
    """The seed of a run, and notes: `given`, or else the seed of the folder's earlier runs, or else a random one.

    The folder records the seed, unless `write` is False. naming: options that names and files depend on, such as
    {"--format": "png"}; a note reports each that differs from the run before, since finished images are not written
    again. Raises InputError if the folder holds images of another model, or of another revision of it.
    """
    record = Path(path) / PRIVATE / "run.json"
    known = _read_run(record)
    if known is None:
        seed = secrets.randbelow(2**32) if given is None else given
        if write:
            state = {"seed": seed, **dataclasses.asdict(model), "version": __version__, **(naming or {})}
            state["model"] = state.pop("name")
            _write_run(record, state)
        return seed, []
    if (known["model"], known["revision"]) != (model.name, model.revision):
        theirs, ours = f"{known['model']} ({known['revision']})", f"{model.name} ({model.revision})"
        raise InputError(f"{str(path)!r} holds images by {theirs}, not by {ours}; give another folder")
    changed = {option: known[option] for option, value in (naming or {}).items() if known.get(option, value) != value}
    before = [f"no {option}" if was is None else f"{option} {was}" for option, was in changed.items()]
    notes = [f"the run before had {option}; its images are kept as they are" for option in before]
    if write and changed:
        _write_run(record, {**known, **(naming or {})})
    return known["seed"] if given is None else given, notes


def _read_run(record: Path) -> dict[str, Any] | None:
    """The record of a folder's earlier runs, None if there is none. Raises InputError for a damaged one."""
    try:
        known = json.loads(record.read_bytes())
        return {**known, "seed": int(known["seed"]), "model": str(known["model"]), "revision": str(known["revision"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{record} is damaged ({type(error).__name__}); remove it, and give --seed") from None


def _write_run(record: Path, state: Mapping[str, Any]) -> None:
    try:
        write_atomic(record, (json.dumps(state) + "\n").encode())
    except OSError as error:
        raise disk_full(error, record.parent.parent) from error


def disk_full(error: OSError, folder: Path) -> WriteError:
    """A system error while an image was written, as a WriteError of one line."""
    reason = error.strerror or str(error)
    fix = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "fix that"
    return WriteError(f"cannot write into {str(folder)!r} ({reason}); {fix}, and run the same command again")


def _describe_owner(path: Path) -> str:
    try:
        process = json.loads(path.read_bytes())
        return f"process {process['pid']} on {process['host']} since {process['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run"
