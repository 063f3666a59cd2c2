"""An output folder behind a URL, such as s3://bucket/run, read and written with fsspec.

Stores of objects cannot append, so the manifest grows by parts, one each time images are added:

    manifest.jsonl                     the lines of finished runs, and of parts that were merged
    .unclip/parts/HASH/BYTES.jsonl     more lines; HASH: of the manifest.jsonl that they continue, BYTES: their place

Parts are written before their images, as lines are in a local folder. Once a new manifest.jsonl is written, which is
one step, older parts belong to none and are removed. While a run lasts, all files but the images are in a temporary
folder of this machine.

The lock is `.unclip/owner.json` (`remote_lock`).
"""

from __future__ import annotations

import errno
import hashlib
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unclip.batch.manifest import MANIFEST, PRIVATE, Entry
from unclip.batch.remote_lock import RemoteLock
from unclip.batch.storage import Condition
from unclip.batch.tally import Tally, is_image
from unclip.errors import InputError

OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "memory"}
"""Protocols whose objects appear whole or not at all. Elsewhere, a file is written under another name and moved."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
CONNECTIONS = 64
"""Files that are written at the same time."""
MERGE = 16 << 20
"""Bytes of parts that are merged into the manifest; more, if that is larger."""
_PARTS = f"{PRIVATE}/parts"
_OWNER = f"{PRIVATE}/owner.json"
_KEPT = re.compile(rf"errors\.jsonl|{re.escape(PRIVATE)}/[\w-]+\.jsonl?")  # of the files beside the images
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z].*)?://.*")


def is_url(text: str) -> bool:
    """Whether the name of a folder is a URL."""
    return _URL.fullmatch(text) is not None


@contextmanager
def open_storage(url: str, *, lock: bool = True) -> Iterator[tuple[Path, RemoteStorage]]:
    """A temporary folder with the manifest and the other files of a URL, and the images there.

    lock: for this run alone. Raises InputError if the URL cannot be read or written, or if another run has locked it.
    """
    files, root = _filesystem(url)
    with tempfile.TemporaryDirectory(prefix="unclip-") as folder:
        storage = RemoteStorage(files, root, url.rstrip("/"), Path(folder))
        with _reported(url):
            if lock:
                storage.lock.acquire()
        try:
            with _reported(url):
                storage.download()
            yield Path(folder), storage
        finally:
            if lock:
                storage.lock.release()


class RemoteStorage:
    """The images behind a URL (see `storage.Storage`), and copies of the other files in `folder`."""

    def __init__(self, files: Any, root: str, url: str, folder: Path) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self._url = url
        self._folder = folder
        protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
        self._is_object_store = not protocols.isdisjoint(OBJECT_STORES)
        self._sizes: dict[str, int] = {}  # of all files there
        self._base = ""  # hash of manifest.jsonl there
        self._place = self._pending = 0  # bytes of the manifest; of those, in parts
        self._uploaded: dict[str, bytes] = {}  # name -> hash
        self.lock = RemoteLock(self._url, self._read_owner, self._write_owner, self._remove_owner)

    # ---- the manifest and the other files

    def download(self) -> None:
        """Copy the manifest, with its parts, and the other files into the folder."""
        self._files.invalidate_cache()
        found = self._files.find(self._root, detail=True) if self._files.exists(self._root) else {}
        start = len(self._root) + 1
        self._sizes = {path[start:]: int(facts["size"] or 0) for path, facts in found.items()}
        (self._folder / PRIVATE).mkdir(exist_ok=True)
        for name in [MANIFEST, *filter(_KEPT.fullmatch, self._sizes)]:
            if name in self._sizes and name != _OWNER:
                self._files.get_file(self._path(name), str(self._folder / name))
                self._uploaded[name] = _file_hash(self._folder / name)
        manifest = self._folder / MANIFEST
        self._base = _file_hash(manifest).hex() if manifest.exists() else _hash(b"").hex()
        self._place = manifest.stat().st_size if manifest.exists() else 0
        mine = sorted(name for name in self._sizes if name.startswith(f"{_PARTS}/{self._base}/"))
        if mine:
            with manifest.open("ab") as file, ThreadPoolExecutor(CONNECTIONS) as pool:
                for data in pool.map(lambda name: self._files.cat_file(self._path(name)), mine):
                    file.write(data)
                    self._place += len(data)
                    self._pending += len(data)

    def added(self, lines: bytes) -> None:
        """Write a part of the manifest; merge the parts when they are as long as the manifest."""
        self.lock.check()
        with _as_os_error():
            self._put(f"{_PARTS}/{self._base}/{self._place:016d}.jsonl", lines)
        self._place += len(lines)
        self._pending += len(lines)
        if self._pending > max(MERGE, self._place - self._pending):
            self.replaced()

    def replaced(self) -> None:
        """Write the whole manifest, and remove the parts."""
        self.lock.check()
        manifest = self._folder / MANIFEST
        base = _file_hash(manifest).hex()
        with _as_os_error():
            if base != self._base or MANIFEST not in self._sizes:
                self._upload(MANIFEST)
            self._base, self._place, self._pending = base, manifest.stat().st_size, 0
            parts = [name for name in self._sizes if name.startswith((f"{_PARTS}/", f"{PRIVATE}/tmp/"))]
            for name in parts:
                self._files.rm_file(self._path(name))
                del self._sizes[name]

    def sync(self) -> None:
        """Write the other files that have changed."""
        self.lock.check()
        for path in (*self._folder.glob("*.jsonl"), *(self._folder / PRIVATE).glob("*.json*")):
            name = path.relative_to(self._folder).as_posix()
            if not _KEPT.fullmatch(name) or name == _OWNER:
                continue
            hash = _file_hash(path)
            if self._uploaded.get(name) != hash:
                with _as_os_error():
                    self._upload(name)
                self._uploaded[name] = hash
        for name in [name for name in self._uploaded if name != MANIFEST and not (self._folder / name).exists()]:
            with suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))
            del self._uploaded[name]

    # ---- the images

    def where(self, name: str) -> str:
        return f"{self._url}/{name}"

    def is_taken(self, name: str, *, replace: bool) -> bool:
        return not replace and name in self._sizes

    def write(self, images: Sequence[tuple[str, bytes]], *, replace: bool) -> list[OSError | None]:
        self.lock.check()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            return list(pool.map(self._write_image, images))

    def _write_image(self, image: tuple[str, bytes]) -> OSError | None:
        try:
            with _as_os_error():
                self._put(*image)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            return error
        return None

    def condition(self, entry: Entry, checked: int, verify: bool) -> Condition:
        size = self._sizes.get(entry.file)
        if size is None:
            return "missing"
        if size != entry.bytes:
            return "altered"
        if verify and entry.sha256 is not None:
            data = self._files.cat_file(self._path(entry.file))
            return "done" if _hash(data).hex() == entry.sha256 else "altered"
        return "done"

    def names(self) -> Iterator[str]:
        return (name for name in self._sizes if is_image(name))

    def tally(self, skip: Collection[str], latest: int | None = None) -> Tally | None:
        found = Tally()
        for name in self.names():
            if name not in skip:
                found += Tally.of(name, self._sizes[name])
        return found

    def free(self) -> int | None:
        return None

    # ---- files

    def _read_owner(self) -> bytes:
        self._files.invalidate_cache()
        return self._files.cat_file(self._path(_OWNER))

    def _write_owner(self, data: bytes) -> None:
        self._put(_OWNER, data)

    def _remove_owner(self) -> None:
        self._files.rm_file(self._path(_OWNER))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _put(self, name: str, data: bytes) -> None:
        """Write a file, which appears whole or not at all."""
        self._place_whole(name, lambda path: self._files.pipe_file(path, data))
        self._sizes[name] = len(data)

    def _upload(self, name: str) -> None:
        """Write a file of the folder, likewise."""
        source = self._folder / name
        self._place_whole(name, lambda path: self._files.put_file(str(source), path))
        self._sizes[name] = source.stat().st_size

    def _place_whole(self, name: str, write: Callable[[str], Any]) -> None:
        if self._is_object_store:
            write(self._path(name))
            return
        temporary = self._path(f"{PRIVATE}/tmp/{secrets.token_hex(8)}")
        for path in (temporary, self._path(name)):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            write(temporary)
            self._files.mv(temporary, self._path(name))
        except BaseException:
            with suppress(Exception):
                self._files.rm_file(temporary)
            raise


def _filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it. Raises InputError if it is unknown or not installed."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise InputError(f"-o {url!r} needs fsspec: pip install fsspec, or give a folder") from None
    scheme = url.partition("://")[0].partition("::")[0].lower()
    try:
        return url_to_fs(url)
    except ImportError as error:
        fix = f"pip install 'unclip[{EXTRAS[scheme]}]'" if scheme in EXTRAS else str(error)
        raise InputError(f"-o {url!r} needs another package: {fix}") from None
    except ValueError as error:
        raise InputError(f"-o {url!r}: {error}; give a folder, or a URL such as s3://bucket/run") from None
    except Exception as error:  # each store has its own
        raise InputError(f"-o {url!r} cannot be used: {_describe(error)}") from None


@contextmanager
def _reported(url: str) -> Iterator[None]:
    """Turn any error into an InputError: a wrong name, no credentials, no network."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"-o {url!r} cannot be used: {_describe(error)}; check the name, the network and the credentials"
        ) from error


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Turn any error of a store into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, _describe(error)) from error


def _describe(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
