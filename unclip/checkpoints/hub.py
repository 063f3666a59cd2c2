"""Download models from the hub, verify them, and find them in the cache without a network."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from unclip.checkpoints.families import is_kandinsky_prior
from unclip.checkpoints.hub_files import (
    check_links,
    find_damaged_files,
    has_hash,
    is_in_cache,
    is_intact,
    remove_damaged_file,
    snapshot_identity,
)
from unclip.checkpoints.hub_responses import checked_responses
from unclip.checkpoints.index import INDEX, check_pipeline, find_missing_files
from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import read_json

_ID = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(\w[\w./-]{0,99}))?", re.ASCII)
_URL = re.compile(r"(?:https?:/{1,2})?(?:www\.)?([\w.-]+(?::\d+)?)/([^?#]*)(?:[?#].*)?", re.ASCII)
_SITES = ("huggingface.co", "hf.co")
_OTHER_PAGES = ("datasets", "spaces", "docs", "papers", "collections", "blog", "models")
PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.md", "LICENSE*"]
CONFIGS = [INDEX, "*/config.json", "README.md"]
ENDS = ("*.safetensors", ".json")  # of a variant's files: model.fp16.safetensors, model.safetensors.index.fp16.json
VARIANTS = ["*.fp16.*", "*.fp16-*", "*.bf16.*", "*.bf16-*", "*.non_ema.*", "*.non_ema-*"]  # the same weights again


def parse_hub_id(name: str) -> str | None:
    """The hub id, "owner/name" or "owner/name@revision", that a name is or a URL of the hub's site leads to.

    None for any other name. Raises CheckpointError for a page of that site that is not a model.
    """
    found = _parse_url(name)
    return found if found is not None else name if _is_id(name) else None


def find_cached(name: str) -> Path | None:
    """The folder of a hub model in the cache, complete or not; None if it is not there. Uses no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, revision = _split(name)
    try:
        found = snapshot_download(
            repository, revision=revision, local_files_only=True, allow_patterns=PATTERNS, ignore_patterns=VARIANTS
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        # Newer versions raise for a folder that lacks any listed file, even the model card. Callers check for missing
        # files by the model's own index.
        found = getattr(error, "snapshot_path", None)
    return None if found is None else Path(found)


def download(name: str, check: Callable[[Path], None] = lambda _: None) -> Path:
    """Download a hub model into the cache, and compare each file with its hash on the hub; returns the folder.

    Files in the cache are not downloaded again, and a broken download resumes. Of a component that has no other
    weights, the variants in half precision are downloaded. check: called with a folder of the configs, before the
    weights are downloaded; it may raise. Raises CheckpointError if the model does not exist, the network fails, a file
    has the wrong hash, or the hub sends names that lead out of the cache.
    """
    from huggingface_hub import snapshot_download

    repository, revision = _split(name)
    check(download_configs(name))
    with _download_errors(name), checked_responses():
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=PATTERNS, ignore_patterns=VARIANTS)
        )
        if lacking := [Path(file).parent for file in find_missing_files(folder) if file.endswith(".safetensors")]:
            variants = [
                f"{component}/*.{kind}{end}" for component in lacking for kind in ("fp16", "bf16") for end in ENDS
            ]
            snapshot_download(repository, revision=folder.name, allow_patterns=variants)
        damaged = find_damaged_files(folder) + _find_damaged_copies(repository, folder)
    for path in damaged:  # the next attempt downloads them again
        remove_damaged_file(folder, path)
    if damaged:
        raise CheckpointError(
            f"{damaged[0].relative_to(folder)} of {name} does not have its hash on the hub; "
            "the file was removed: try again"
        )
    return folder


def download_configs(name: str) -> Path:
    """Download the configs and the model card of a hub model into the cache; returns the folder.

    Raises CheckpointError as `download`, and for a model of another pipeline.
    """
    from huggingface_hub import snapshot_download

    repository, revision = _split(name)
    with _download_errors(name), checked_responses():
        # First the index alone: the files of another model may be hundreds of gigabytes.
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[INDEX]))
        if not (folder / INDEX).is_file():
            raise CheckpointError(f"it has no {INDEX}, which every checkpoint of a pipeline has; give another model")
        if is_in_cache(folder, folder / INDEX):  # a link that leads elsewhere is removed by `download`
            index = read_json(folder / INDEX)
            if not is_kandinsky_prior(index):  # a part of a model, in a repository of its own
                check_pipeline(index, Path(INDEX))
        return Path(snapshot_download(repository, revision=revision, allow_patterns=CONFIGS))


def download_file(repository: str, file: str) -> Path:
    """A file in the root of a hub repository, from the cache if it is there. Raises CheckpointError as `download`."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _download_errors(f"{file} of {repository}"), checked_responses():
        try:
            path = Path(hf_hub_download(repository, file, local_files_only=True))
        except LocalEntryNotFoundError:
            path = Path(hf_hub_download(repository, file))
            if path.is_symlink() and not is_intact(path.parent, path):
                remove_damaged_file(path.parent, path)
                raise CheckpointError("it does not have its hash there; the file was removed: try again") from None
    check_links(path.parent)
    return path


def list_cached_models() -> list[tuple[str, Path]]:
    """(owner/name, folder) of every checkpoint in the cache that has a model_index.json."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model_index.json")
    found = {}
    for path in sorted(folders):
        known = snapshot_identity(path.parent)
        if known is not None and is_in_cache(path.parent, path):
            found[known] = path.parent
    return [(known[0], folder) for known, folder in found.items()]


@contextmanager
def _download_errors(name: str) -> Iterator[None]:
    """Turns every error within this context into a CheckpointError: cannot download `name`."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"cannot download {name} from the hub: {error}") from None
    except Exception as error:  # from the hub library, the HTTP client or the disk
        raise CheckpointError(f"cannot download {name} from the hub: {_reason(error)}") from None


def _find_damaged_copies(repository: str, folder: Path) -> list[Path]:
    """The damaged ones of the files that a cache without symbolic links holds, whose names are no hashes."""
    from huggingface_hub import HfApi

    copies = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    if not copies:
        return []
    hashes = {}
    for entry in HfApi().list_repo_tree(repository, recursive=True, revision=folder.name):
        large = getattr(entry, "lfs", None)
        hashes[entry.path] = getattr(entry, "blob_id", "") if large is None else large.sha256
    names = {path: path.relative_to(folder).as_posix() for path in copies}
    return [path for path, name in names.items() if name in hashes and not has_hash(path, hashes[name])]


def _parse_url(name: str) -> str | None:
    """The hub id in a URL of the hub's site, which may lack "https://"; None for any other name."""
    match = _URL.fullmatch(name.strip())
    site = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    if match is None or match[1].lower() not in (*_SITES, site):
        return None
    parts = [unquote(part) for part in match[2].split("/") if part]
    if len(parts) < 2 or parts[0] in _OTHER_PAGES:
        raise CheckpointError(f"{show(name)} is not the page of a model on the hub; give owner/name")
    kind, revision, rest = parts[2:3], parts[3:4], parts[4:]
    if kind in (["tree"], ["commit"]) and rest:
        raise CheckpointError(f"{show(name)} is a part of a model on the hub; give {'/'.join(parts[:2])}")
    pinned = kind in (["tree"], ["commit"], ["blob"], ["resolve"]) and revision not in ([], ["main"])
    found = "/".join(parts[:2]) + (f"@{revision[0]}" if pinned else "")
    if not _is_id(found):
        raise CheckpointError(f"{show(name)} is not the page of a model on the hub; give owner/name")
    return found


def _is_id(name: str) -> bool:
    """Whether a name is a hub id that leads to no other folder of the cache, and to none outside."""
    match = _ID.fullmatch(name)
    return match is not None and "--" not in match[1] and ".." not in name and "//" not in name and name[-1] not in "/."


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
