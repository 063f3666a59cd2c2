"""Download models from the hub, verify them, and find them in the cache without a network."""

import hashlib
import re
from pathlib import Path

from unclip.errors import CheckpointError

_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,100}))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.md", "LICENSE*"]
VARIANTS = ["*.fp16.*", "*.fp16-*", "*.non_ema.*", "*.non_ema-*"]  # the same weights again; not downloaded


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id: "owner/name", or "owner/name@revision"."""
    match = _ID.fullmatch(name)
    return match is not None and ".." not in name and "--" not in match[1]


def find_cached(name: str) -> Path | None:
    """The folder of a hub model in the cache, complete or not; None if it is not there. Uses no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, revision = _split(name)
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=True,
                allow_patterns=PATTERNS,
                ignore_patterns=VARIANTS,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        # Newer versions raise for a folder that lacks any listed file, even the model card. Callers check for missing
        # files by the model's own index.
        incomplete = getattr(error, "snapshot_path", None)
        return None if incomplete is None else Path(incomplete)


def download(name: str) -> Path:
    """Download a hub model into the cache, and compare each file with its hash on the hub; returns the folder.

    Files in the cache are not downloaded again, and a broken download resumes. Raises CheckpointError if the model does
    not exist, the network fails, or a file has the wrong hash.
    """
    from huggingface_hub import snapshot_download

    repository, revision = _split(name)
    try:
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=PATTERNS, ignore_patterns=VARIANTS)
        )
    except Exception as error:  # from the hub library, the HTTP client or the disk
        raise CheckpointError(f"cannot download {name} from the hub: {_reason(error)}") from None
    if damaged := find_damaged_files(folder):
        for path in damaged:  # the next attempt downloads them again
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{damaged[0].relative_to(folder)} of {name} does not have its hash on the hub; "
            "the file was removed: try again"
        )
    return folder


def snapshot_identity(folder: Path) -> tuple[str, str] | None:
    """(owner/name, commit) of a folder in the hub's cache; None for any other folder."""
    folder = Path(folder).absolute()
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not _COMMIT.fullmatch(folder.name) or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/"), folder.name


def list_cached_models() -> list[tuple[str, Path]]:
    """(owner/name, folder) of every checkpoint in the cache that has a model_index.json."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model_index.json")
    found = {snapshot_identity(path.parent): path.parent for path in sorted(folders)}
    return [(known[0], folder) for known, folder in found.items() if known is not None]


def find_damaged_files(folder: Path) -> list[Path]:
    """The files of a folder in the hub's cache whose content does not match the hash in their name."""
    return [path for path in sorted(folder.rglob("*")) if path.is_symlink() and not _is_intact(path.resolve())]


def _is_intact(blob: Path) -> bool:
    """Whether a cached file matches the hash that is its name: SHA-256 for large files, git's SHA-1 for others."""
    if not blob.is_file():
        return False
    with blob.open("rb") as file:
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return hashlib.file_digest(file, "sha256").hexdigest() == blob.name
        if re.fullmatch(r"[0-9a-f]{40}", blob.name):
            digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
            digest.update(file.read())
            return digest.hexdigest() == blob.name
    return True  # its name is not a hash


def _split(name: str) -> tuple[str, str | None]:
    """Split "owner/name@revision" into owner/name and revision, or None."""
    match = _ID.fullmatch(name)
    assert match is not None, f"{name!r} is not a hub id"
    return match[1], match[2]


def _reason(error: Exception) -> str:
    """A short description of an error of the hub library."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return "it is gated: accept its terms on its page, and log in (`hf auth login`)"
    if "RepositoryNotFoundError" in kinds:
        return "it does not exist, or it is private"
    if "RevisionNotFoundError" in kinds:
        return "it has no such revision"
    if "OfflineModeIsEnabled" in kinds or "OfflineModeIsEnabled" in {type(error.__cause__).__name__}:
        return "it is not in the cache, and HF_HUB_OFFLINE forbids the network"
    if "LocalEntryNotFoundError" in kinds:
        return "the hub cannot be reached, and the model is not in the cache"
    return " ".join(str(error).split())[:300] or type(error).__name__
