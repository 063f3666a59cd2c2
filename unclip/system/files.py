"""Files that are either there in full or not there at all."""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unclip.errors import CheckpointError, InputError


def write_atomic(path: str | Path, data: bytes, *, overwrite: bool = True, scratch: Path | None = None) -> Path:
    """Write `data` to `path`, whose folder is created if need be, through a temporary file.

    The temporary file lies in the same folder, or in `scratch`, a folder on the same file system: a caller that may
    be killed at any moment can then find and remove it.

    With `overwrite=False` an existing file is left as it is and FileExistsError is raised, also when another
    process creates it at the same moment. Raises OSError where the system refuses.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (scratch or path.parent) / f".unclip-{secrets.token_hex(8)}.tmp"
    # os.open and not tempfile: the file gets the permissions of the user's umask, not 0600.
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
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


def write_new(path: str | Path, data: bytes) -> Path:
    """Write `data` under `path`, or, where that name is taken, under the first free of name-2, name-3, ..."""
    path = Path(path)
    candidate, count = path, 1
    while True:
        # Looking first spares writing the data once for each name that is taken.
        if not os.path.lexists(candidate):
            with contextlib.suppress(FileExistsError):
                return write_atomic(candidate, data, overwrite=False)
        count += 1
        candidate = path.with_name(f"{path.stem}-{count}{path.suffix}")


def new_folder(path: str | Path) -> Path:
    """Make the folder `path`, or, where that name is taken, the first free of name-2, name-3, ..."""
    path = Path(path)
    candidate, count = path, 1
    while True:
        with contextlib.suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")


def check_writable(folder: str | Path) -> None:
    """Find out whether files can be written into `folder`, leaving nothing behind. Raises InputError.

    The folder is created and removed again: permissions alone do not tell (read-only disks, root, /proc).
    """
    folder = Path(folder)
    created: list[Path] = []
    try:
        missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
        for part in reversed(missing):
            part.mkdir()
            created.append(part)
        probe = folder / f".unclip-{secrets.token_hex(8)}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot write into {str(folder)!r} ({reason}); choose another folder") from error
    finally:
        for part in reversed(created):
            with contextlib.suppress(OSError):  # not empty: another process uses it by now
                part.rmdir()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a checkpoint. Raises CheckpointError when the file is missing or holds anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(f"{path} is missing; get the checkpoint anew") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not JSON ({error}); get the checkpoint anew") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no JSON object; get the checkpoint anew")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, atomically."""
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def _place_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike rename, this fails if the name is taken
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists") from None
        os.replace(temporary, path)
