"""The output folder of a prompt file: one run at a time, a manifest of what is done, and pictures that are whole.

    manifest.jsonl   a line an image, on the disk before its picture is
    errors.jsonl     a line each line or image that failed in the last run
    .unclip/         the lock, the run's seed, model and names, its grid's name, and files that are being written

A picture is done when the manifest has it and a file of that length is there. So a run may be killed at any moment:
the next one drops the lines without a picture, and draws those anew.
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
        self._done = array("Q")  # keys, sorted: eight bytes an image
        self._names: set[int] = set()  # of what this folder has, kept only where names may be taken over
        self._manifest: Any = None
        self._errors: Any = None

    def is_done(self, key: int) -> bool:
        """Whether the manifest had this image, and its file was there, when the folder was opened."""
        place = bisect_left(self._done, key)
        return place < len(self._done) and self._done[place] == key

    @property
    def done(self) -> int:
        """How many images the folder had when it was opened."""
        return len(self._done)

    def add(self, pictures: Sequence[ImageFile]) -> list[Path | OSError]:
        """Record pictures, then write them. A name that is taken becomes name-2, name-3, ...

        A picture whose own name is what the system refuses, as one in a folder that is a file, comes back as the error.
        Raises OSError where it refuses all; what was not written then is drawn again by the next run.
        """
        taken: set[str] = set()
        named = [(picture, self._free(picture.name, taken)) for picture in pictures]
        lines = [
            json.dumps(
                {"file": name, **picture.entry, "key": f"{picture.entry['key']:016x}", "bytes": len(picture.data)}
            )
            for picture, name in named
        ]
        told = "".join(f"{line}\n" for line in lines).encode()
        if self._manifest.write(told) < len(told):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._manifest.fileno())
        paths: list[Path | OSError] = []
        for picture, name in named:
            path = self.path / name
            try:
                write_atomic(path, picture.data, overwrite=self._overwrite, scratch=self._scratch)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                paths.append(error)
                continue
            self._remember(name)
            paths.append(path)
        return paths

    def write_grid(self, name: str, data: bytes) -> Path:
        """Write the sheet of a run: over that of an earlier run of this folder, and over nothing else."""
        path = find_grid(self.path)
        if path is None:
            path = write_new(self.path / name, data)
        else:
            write_atomic(path, data)
        write_json(self.path / PRIVATE / GRID, {"file": path.name, "bytes": len(data)})
        return path

    def error(self, fields: dict[str, Any]) -> None:
        """Add a line to errors.jsonl. Raises WriteError where there is no room for it."""
        try:
            if self._errors is None:
                self._errors = (self.path / ERRORS).open("wb", buffering=0)
            self._errors.write(json.dumps(fields).encode() + b"\n")
        except OSError as error:
            raise disk_full(error, self.path) from error

    def _free(self, name: str, taken: set[str]) -> str:
        """`name`, or the first of name-2, name-3, ... that no file and none of `taken` has; added to `taken`."""
        stem, dot, suffix = name.rpartition(".")
        candidate, count = name, 1
        while candidate.casefold() in taken or self._is_taken(candidate):
            count += 1
            candidate = f"{stem}-{count}{dot}{suffix}"
        taken.add(candidate.casefold())
        return candidate

    def _is_taken(self, name: str) -> bool:
        if self._overwrite:  # only from strangers
            return hash(name.casefold()) in self._names or (self.path / name).is_dir()
        return os.path.lexists(self.path / name)

    def _remember(self, name: str) -> None:
        if self._overwrite:
            self._names.add(hash(name.casefold()))

    def _start(self) -> None:
        """Clear away what a killed run left, and read what is done."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        for left in self._scratch.iterdir():
            left.unlink()
        (self.path / ERRORS).unlink(missing_ok=True)
        path = self.path / MANIFEST
        kept, lost = self._scratch / "manifest", False
        keys = []
        if path.exists():
            with path.open("rb") as old, kept.open("wb") as new:
                for line in old:
                    entry = self._confirmed(line)
                    if entry is None:
                        lost = True
                        continue
                    new.write(line)
                    keys.append(int(entry["key"], 16))
                    self._remember(entry["file"])
                new.flush()
                os.fsync(new.fileno())
            if lost:
                os.replace(kept, path)
            else:
                kept.unlink()
        self._done = array("Q", sorted(keys))
        self._manifest = path.open("ab", buffering=0)  # what finds no room is not tried again when it is closed

    def _confirmed(self, line: bytes) -> dict[str, Any] | None:
        """A line of the manifest, if it is whole and its picture is there."""
        try:
            entry = json.loads(line)
            size = os.stat(self.path / entry["file"]).st_size
            whole = line.endswith(b"\n") and size == entry["bytes"] and 0 <= int(entry["key"], 16) < 1 << 64
        except (OSError, ValueError, TypeError, LookupError, RecursionError):
            return None
        return entry if whole else None

    def _close(self) -> None:
        for file in (self._manifest, self._errors):
            if file is not None:
                file.close()


def read_folder(path: str | Path) -> Folder:
    """A folder to ask what is done in it: it is not locked, and nothing is written."""
    folder = Folder(Path(path), overwrite=False)
    with contextlib.suppress(OSError), (folder.path / MANIFEST).open("rb") as manifest:
        keys = array("Q", (int(entry["key"], 16) for line in manifest if (entry := folder._confirmed(line))))
        folder._done = array("Q", sorted(keys))
    return folder


def find_grid(path: str | Path) -> Path | None:
    """The sheet that an earlier run of a folder wrote, if it is still there as it was."""
    try:
        told = json.loads((Path(path) / PRIVATE / GRID).read_bytes())
        found = Path(path) / Path(told["file"]).name
        return found if found.stat().st_size == told["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


@contextlib.contextmanager
def open_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Folder]:
    """Lock a folder, created if need be, for this process.

    With `overwrite`, a picture may take the name of a file that the manifest does not list.
    Raises InputError where it cannot be written to or another run has it.
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
        raise InputError(f"{str(path)!r} is in use by {_owner(owner)}; wait for it, or give another folder") from None
    try:
        told = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        folder = Folder(path, overwrite)
        try:
            try:
                write_atomic(owner, json.dumps(told).encode())
                folder._start()
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
    """The seed of a run: `given`, or the one that the folder's earlier runs had, or a new one, which is recorded.

    naming: how pictures are named and written, such as {"--format": "png"}. Also what to tell of that: pictures that
    are there are not made again in another format. Raises InputError where the folder holds the pictures of another
    model, or another revision of it.
    """
    record = Path(path) / PRIVATE / "run.json"
    try:
        known = json.loads(record.read_bytes())
        seed, name, revision = int(known["seed"]), str(known["model"]), str(known["revision"])
    except FileNotFoundError:
        known = None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{record} is damaged ({type(error).__name__}); remove it, and give --seed") from None
    if known is None:
        seed = secrets.randbelow(2**32) if given is None else given
        if write:
            state = {"seed": seed, **dataclasses.asdict(model), "version": __version__, **(naming or {})}
            state["model"] = state.pop("name")
            _write_run(record, state)
        return seed, []
    if (name, revision) != (model.name, model.revision):
        theirs, ours = f"{name} ({revision})", f"{model.name} ({model.revision})"
        raise InputError(f"{str(path)!r} holds pictures by {theirs}, not by {ours}; give another folder")
    changed = {option: known[option] for option, value in (naming or {}).items() if known.get(option, value) != value}
    before = [f"no {option}" if was is None else f"{option} {was}" for option, was in changed.items()]
    notes = [f"the run before had {told}, as the pictures have that are there" for told in before]
    if write and changed:
        _write_run(record, {**known, **naming})
    return seed if given is None else given, notes


def _write_run(record: Path, state: Mapping[str, Any]) -> None:
    try:
        write_atomic(record, (json.dumps(state) + "\n").encode())
    except OSError as error:
        raise disk_full(error, record.parent.parent) from error


def disk_full(error: OSError, folder: Path) -> WriteError:
    """An error of the system while a picture was written, as one line."""
    reason = error.strerror or str(error)
    fix = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "put that right"
    return WriteError(f"cannot write into {str(folder)!r} ({reason}); {fix}, and run the same command again")


def _owner(path: Path) -> str:
    try:
        told = json.loads(path.read_bytes())
        return f"process {told['pid']} on {told['host']} since {told['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run"
