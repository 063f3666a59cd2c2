"""Open an output folder: lock it for one run at a time, and check its images."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from unclip.batch.manifest import MANIFEST, PRIVATE
from unclip.batch.output_folder import Folder
from unclip.batch.remote_storage import is_url, open_storage
from unclip.batch.storage import LocalStorage, disk_full
from unclip.errors import InputError
from unclip.system.files import check_writable, write_atomic
from unclip.system.json_values import parse_json


@contextlib.contextmanager
def read_folder(path: str | Path, *, verify: bool = False) -> Iterator[Folder]:
    """A folder, or a URL, to look up finished images in. It is not locked, and nothing is written."""
    with contextlib.ExitStack() as stack:
        if is_url(str(path)):
            local, storage = stack.enter_context(open_storage(str(path), lock=False))
        else:
            local, storage = Path(path), LocalStorage(Path(path))
        folder = Folder(local, storage, verify=verify, is_locked=False)
        with contextlib.suppress(OSError):
            folder.look()
        yield folder


@contextlib.contextmanager
def open_folder(path: str | Path, *, overwrite: bool = False, verify: bool = False) -> Iterator[Folder]:
    """Create a folder if necessary, lock it for this process, and check its images.

    path: a folder, or a URL that fsspec reads, such as s3://bucket/run.
    overwrite: images may replace files that the manifest does not list. verify: compare the hashes of all images, not
    only of those written since the last check. Raises InputError if the folder cannot be written to or another run has
    locked it.
    """
    if is_url(str(path)):
        with (
            open_storage(str(path)) as (local, storage),
            _checked(Folder(local, storage, overwrite=overwrite, verify=verify)) as folder,
        ):
            yield folder
        return
    path = Path(path)
    with _locked(path), _checked(Folder(path, overwrite=overwrite, verify=verify)) as folder:
        yield folder


@contextlib.contextmanager
def _checked(folder: Folder) -> Iterator[Folder]:
    """The folder, ready to add images to."""
    try:
        try:
            folder.open()
        except OSError as error:
            raise disk_full(error, folder.name) from error
        yield folder
    finally:
        folder.close()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock of a folder of this machine, which is created if necessary."""
    from filelock import FileLock, Timeout

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
        try:
            write_atomic(owner, json.dumps(process).encode())
        except OSError as error:
            raise disk_full(error, path) from error
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _describe_owner(path: Path) -> str:
    try:
        process = parse_json(path.read_bytes())
        pid, host, since = (str(process[name])[:60] for name in ("pid", "host", "since"))
        return f"process {pid} on {host} since {since}"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run"
