"""Verify the files of a model in the hub's cache: each belongs to the cache and has the hash that is its name."""

import hashlib
import os
import re
from pathlib import Path

from unclip.errors import CheckpointError

_COMMIT = re.compile(r"[0-9a-f]{40}")


def snapshot_identity(folder: Path) -> tuple[str, str] | None:
    """(owner/name, commit) of a folder in the hub's cache; None for any other folder."""
    folder = Path(folder).absolute()
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not _COMMIT.fullmatch(folder.name) or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/"), folder.name


def check_links(folder: Path) -> Path:
    """The folder; raises CheckpointError if it is in the hub's cache and a link in it leads out of the cache."""
    if snapshot_identity(folder) is not None:
        for path in sorted(folder.rglob("*")):
            if not is_in_cache(folder, path):
                raise CheckpointError(
                    f"{path} leads out of the hub's cache, which no download does; "
                    f"remove {folder.absolute().parent.parent} and download the model again"
                )
    return folder


def is_in_cache(folder: Path, path: Path) -> bool:
    """Whether a file of a snapshot's folder is in the cache: a file of its own there, or a link to one."""
    return not path.is_symlink() or find_blob(folder, path) is not None


def find_damaged_files(folder: Path) -> list[Path]:
    """The files of a folder in the hub's cache whose content does not match the hash in their name.

    A link to anything but a file with such a name counts as damaged.
    """
    return [path for path in sorted(folder.rglob("*")) if path.is_symlink() and not is_intact(folder, path)]


def is_intact(folder: Path, path: Path) -> bool:
    """Whether a link in a snapshot's folder names a file in the cache that matches the hash that is its name."""
    blob = find_blob(folder, path)
    return blob is not None and blob.is_file() and has_hash(blob, blob.name)


def remove_damaged_file(folder: Path, path: Path) -> None:
    """Remove a file, or a link and the file that it names, but nothing outside the cache."""
    blob = find_blob(folder, path) if path.is_symlink() else None
    path.unlink(missing_ok=True)
    if blob is not None:
        blob.unlink(missing_ok=True)


def find_blob(folder: Path, path: Path) -> Path | None:
    """The file in the cache that a link in a snapshot's folder names, existing or not; None if it leads elsewhere.

    Newer versions of the hub's library keep a file once for all repositories; then the blob is itself a link.
    """
    repository = folder.absolute().parent.parent
    blobs, store = (os.path.realpath(place / "blobs") for place in (repository, repository.parent))
    target = os.path.normpath(path.absolute().parent / os.readlink(path))
    if os.path.realpath(os.path.dirname(target)) != blobs:
        return None
    real = os.path.realpath(target)
    return Path(target) if os.path.dirname(real) == blobs or real.startswith(store + os.sep) else None


def has_hash(path: Path, expected: str) -> bool:
    """Whether a file has a hash: SHA-256 for large files, the SHA-1 of git for others."""
    with path.open("rb") as file:
        if re.fullmatch(r"[0-9a-f]{64}", expected):
            return hashlib.file_digest(file, "sha256").hexdigest() == expected
        if re.fullmatch(r"[0-9a-f]{40}", expected):
            digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
            while part := file.read(1 << 20):
                digest.update(part)
            return digest.hexdigest() == expected
    return False
