"""Models on the hub: fetched when asked for, checked, and from then on found in its cache without a network."""

import hashlib
import re
from pathlib import Path

from unclip.errors import CheckpointError

_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]{1,100}))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.md", "LICENSE*"]
VARIANTS = ["*.fp16.*", "*.fp16-*", "*.non_ema.*", "*.non_ema-*"]  # the same weights once more


def is_id(name: str) -> bool:
    """Whether a name has the form of a hub id: "owner/name", or "owner/name@revision"."""
    match = _ID.fullmatch(name)
    return match is not None and ".." not in name and "--" not in match[1]


def cached(name: str) -> Path | None:
    """The folder of a model in the cache, complete or not; None if it is not there. No network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    owner_and_name, revision = _ID.fullmatch(name).groups()
    try:
        return Path(snapshot_download(owner_and_name, revision=revision, local_files_only=True, **_files()))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        # Newer versions refuse a folder that lacks anything of what was listed, be it the card; what a model needs, its
        # own index says.
        partly = getattr(error, "snapshot_path", None)
        return None if partly is None else Path(partly)


def download(name: str) -> Path:
    """Fetch a model's files into the cache, and compare each with the hash that the hub gives for it.

    What is there already is not fetched again, and a connection that breaks is taken up where it broke. Raises
    CheckpointError for a model that is not there, a network that fails, or a file that is not what was announced.
    """
    from huggingface_hub import snapshot_download

    owner_and_name, revision = _ID.fullmatch(name).groups()
    try:
        folder = Path(snapshot_download(owner_and_name, revision=revision, **_files()))
    except Exception as error:  # of the hub's library, of the HTTP client beneath it, of the disk
        raise CheckpointError(f"cannot get {name} from the hub: {_reason(error)}") from None
    if damaged := damaged_files(folder):
        for path in damaged:  # so that the next try does not find them
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{damaged[0].relative_to(folder)} of {name} does not have the hash that the hub gives for it; "
            "it was removed: try again"
        )
    return folder


def identity(folder: Path) -> tuple[str, str] | None:
    """(owner/name, commit) of a folder in the hub's cache; None for any other folder."""
    folder = Path(folder).absolute()
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not _COMMIT.fullmatch(folder.name) or not repository.startswith("models--"):
        return None
    return repository.removeprefix("models--").replace("--", "/"), folder.name


def cached_models() -> list[tuple[str, Path]]:
    """(owner/name, folder) of every checkpoint in the cache that has a model_index.json."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model_index.json")
    found = {identity(path.parent): path.parent for path in sorted(folders)}
    return [(known[0], folder) for known, folder in found.items() if known is not None]


def damaged_files(folder: Path) -> list[Path]:
    """The files of a folder in the hub's cache whose content does not have the hash they are kept under."""
    return [path for path in sorted(folder.rglob("*")) if path.is_symlink() and not _is_intact(path.resolve())]


def _is_intact(blob: Path) -> bool:
    """The cache names a large file by its SHA-256, and another as git does."""
    if not blob.is_file():
        return False
    with blob.open("rb") as file:
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return hashlib.file_digest(file, "sha256").hexdigest() == blob.name
        if re.fullmatch(r"[0-9a-f]{40}", blob.name):
            digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
            digest.update(file.read())
            return digest.hexdigest() == blob.name
    return True  # kept under a name that is no hash


def _files() -> dict[str, list[str]]:
    return {"allow_patterns": PATTERNS, "ignore_patterns": VARIANTS}


def _reason(error: Exception) -> str:
    """An error of the hub's library in a few words."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return "its owner wants you to accept terms on its page and to log in (`hf auth login`)"
    if "RepositoryNotFoundError" in kinds:
        return "there is no such model, or it is private"
    if "RevisionNotFoundError" in kinds:
        return "it has no such revision"
    if "OfflineModeIsEnabled" in kinds or "OfflineModeIsEnabled" in {type(error.__cause__).__name__}:
        return "it is not in the cache, and HF_HUB_OFFLINE forbids the network"
    if "LocalEntryNotFoundError" in kinds:
        return "the hub cannot be reached, and the model is not in the cache"
    return " ".join(str(error).split())[:300] or type(error).__name__
