"""Atomic writes, new names for existing ones, and JSON files of checkpoints."""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unclip.errors import CheckpointError, InputError
from unclip.system.json_values import parse_json


def write_atomic(path: str | Path, data: bytes, *, overwrite: bool = True, scratch: Path | None = None) -> Path:
    """Write `data` to `path` atomically, through a temporary file; returns `path`. Creates the folder if necessary.

    scratch: folder of the temporary file, on the same file system; None uses the folder of `path`. A caller that may be
    killed can find and remove leftovers there. overwrite: False raises FileExistsError for an existing file, even if
    another process creates it at the same moment. Raises OSError, with the file's name, if the system refuses.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (scratch or path.parent) / f".unclip-{secrets.token_hex(8)}.tmp"
    # os.open instead of tempfile, so that the file's permissions follow the umask instead of being 0600.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            os.replace(temporary, path)
        else:
            _place_new(temporary, path)
    except OSError as error:
        raise named(error, path) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


def named(error: OSError, path: Path) -> OSError:
    """The same error with the name of a file: a full disk is reported without one."""
    is_unnamed = error.filename is None and error.errno is not None
    return OSError(error.errno, error.strerror, str(path)) if is_unnamed else error


def remove_temporaries(folder: Path, minutes: float = 0) -> None:
    """Remove the temporary files that a killed process left in a folder and its subfolders.

    minutes: only those to which nothing was written for so long, where another process may be writing.
    """
    for path in folder.rglob(".unclip-*.tmp"):
        with contextlib.suppress(OSError):  # another process has just removed it
            if time.time() - path.stat().st_mtime >= 60 * minutes:
                path.unlink()


def write_new(path: str | Path, data: bytes) -> Path:
    """Write `data` to `path` or, if that exists, to the first free name of name-2, name-3, ...; returns the path."""
    path = Path(path)
    candidate, count = path, 1
    while True:
        # Checking first avoids writing the data once for each existing name.
        if not os.path.lexists(candidate):
            with contextlib.suppress(FileExistsError):
                return write_atomic(candidate, data, overwrite=False)
        count += 1
        candidate = path.with_name(f"{path.stem}-{count}{path.suffix}")


def make_new_folder(path: str | Path) -> Path:
    """Create the folder `path` or, if that exists, the first free name of name-2, name-3, ...; returns its path."""
    path = Path(path)
    candidate, count = path, 1
    while True:
        with contextlib.suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")


PROBES = 20
"""How often a folder is tried that other processes create and remove at the same time."""


def check_writable(folder: str | Path) -> None:
    """Raise InputError unless files can be written into `folder`. Leaves nothing behind, unless others
    create parts of the same path at the same time.

    Creates the folder and a file in it, and removes them: permissions alone do not suffice (read-only disks, root,
    /proc).
    """
    folder = Path(folder)
    for attempt in range(PROBES):
        try:
            return _probe(folder)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            # Another process, which checks the same folder, may have created it first, or removed it.
            if isinstance(error, FileExistsError | FileNotFoundError) and attempt < PROBES - 1:
                continue
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot write into {str(folder)!r} ({reason}); choose another folder") from error


def _probe(folder: Path) -> None:
    """Create a file in a folder, and the folder with its parents if needed; remove what was created."""
    created: list[Path] = []
    try:
        missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
        for part in reversed(missing):
            part.mkdir()
            created.append(part)
        probe = folder / f".unclip-{secrets.token_hex(8)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
    finally:
        for part in reversed(created):
            with contextlib.suppress(OSError):  # not empty: another process uses it
                part.rmdir()


def read_ahead(paths: Iterable[Path], most: int = 256 << 20) -> None:
    """Ask the system to read files into its cache while the program does other work, as far as it offers that.

    most: bytes of all files together; beyond that, none is read ahead.
    """
    with contextlib.suppress(OSError):
        sizes = {path: path.stat().st_size for path in paths}
        if not hasattr(os, "posix_fadvise") or sum(sizes.values()) > most:
            return
        for path, size in sizes.items():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint. Raises CheckpointError if the file is missing or damaged."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(f"{path} is missing; download the checkpoint again") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    except ValueError as error:
        reason = f"damaged: it is not JSON ({' '.join(str(error).split())[:100]}); download the checkpoint again"
        raise CheckpointError(f"{path} is {foreign_content(path) or reason}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object; download the checkpoint again")
    return value


def foreign_content(path: Path) -> str | None:
    """What a file is that stands in for the file itself, and the fix; None for any other file."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not the file itself: run `git lfs pull` in its folder, or download the file"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the file itself: download the file from the link on that page"
    return None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def _place_new(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`. Raises FileExistsError if `path` exists."""
    try:
        os.link(temporary, path)  # unlike rename, fails if the name exists
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists") from None
        os.replace(temporary, path)
