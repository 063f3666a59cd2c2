"""Find the folder of a checkpoint by name, path or hub id. Reads no weights."""

import os
from collections.abc import Callable
from pathlib import Path

from unclip.checkpoints import hub
from unclip.checkpoints.hub_files import check_links
from unclip.checkpoints.index import INDEX, find_missing_files
from unclip.errors import CheckpointError, DataError, nearest
from unclip.requests.values import show
from unclip.system.resources import bundled


def list_bundled_models() -> list[str]:
    """The names of the models that are distributed with the package."""
    try:
        return sorted(path.parent.name for path in bundled("weights").glob(f"*/{INDEX}"))
    except DataError:
        return []


def find_checkpoint(name: str | Path, download: bool = False, check: Callable[[Path], None] = lambda _: None) -> Path:
    """The folder of a checkpoint.

    name: a folder, the name of a bundled model, or a hub id ("owner/name", "owner/name@revision"), for which the URL of
    its page will do. A model that is complete in the hub's cache is used from there without contacting the hub.
    download: fetch a hub model that is not in the cache. check: called with its configs before its weights are fetched.
    Raises CheckpointError, with the available models, if there is no such checkpoint.
    """
    if os.path.isfile(Path(name) / INDEX):  # unlike Path.is_file, False for a name that is too long
        return check_links(Path(name))
    bundled_names = list_bundled_models()
    if str(name) in bundled_names:
        return bundled("weights", str(name))
    if os.path.isdir(name):
        raise CheckpointError(f"{name} has no {INDEX}: give the folder that contains it")
    available = ", ".join(bundled_names) or "none"
    if (hub_id := hub.parse_hub_id(str(name))) is not None:
        folder = hub.find_cached(hub_id)
        if folder is not None and not find_missing_files(check_links(folder)):
            return folder
        if download:
            folder = hub.download(hub_id, check)
            if missing := find_missing_files(folder):
                raise CheckpointError(f"{hub_id} on the hub is not a checkpoint in safetensors: it has no {missing[0]}")
            return folder
        raise CheckpointError(
            f"no model {hub_id!r} here: get it with `unclip models download {hub_id}`, or give a checkpoint folder, "
            f"or a bundled model: {available}"
        )
    near = nearest(name, bundled_names)
    hint = f"did you mean {near!r}? " if near else ""
    raise CheckpointError(
        f"no model {show(str(name))}: {hint}Give a checkpoint folder, a hub id (owner/name), or a bundled model: "
        f"{available}"
    )
