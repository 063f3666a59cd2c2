"""Where the files that come with the package lie, and which folder a model's name stands for. Reads no weights."""

import os
from pathlib import Path

from unclip.checkpoints import hub
from unclip.checkpoints.index import INDEX, missing_parts
from unclip.errors import CheckpointError, DataError, nearest
from unclip.system.resources import bundled


def bundled_models() -> list[str]:
    """The names of the models that come with the package."""
    try:
        return sorted(path.parent.name for path in bundled("weights").glob(f"*/{INDEX}"))
    except DataError:
        return []


def find_checkpoint(name: str | Path, download: bool = False) -> Path:
    """A folder, the name of a bundled model, or a hub id ("owner/name", "owner/name@revision") -> its folder.

    A model that is in the hub's cache is taken from there without asking the hub. One that is not is fetched if
    `download` is set. Raises CheckpointError naming what there is.
    """
    if os.path.isfile(Path(name) / INDEX):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    known = bundled_models()
    if str(name) in known:
        return bundled("weights", str(name))
    if os.path.isdir(name):
        raise CheckpointError(f"{name} has no {INDEX}: give the folder that holds it")
    models = ", ".join(known) or "none"
    if hub.is_id(str(name)):
        folder = hub.cached(str(name))
        if folder is not None and not missing_parts(folder):
            return folder
        if download:
            folder = hub.download(str(name))
            if gone := missing_parts(folder):
                raise CheckpointError(f"{name} on the hub is no checkpoint in safetensors: it has no {gone[0]}")
            return folder
        raise CheckpointError(
            f"no model {str(name)!r} here: get it with `unclip models download {name}`, or give a checkpoint folder, "
            f"or a bundled model: {models}"
        )
    near = nearest(name, known)
    hint = f"did you mean {near!r}? " if near else ""
    raise CheckpointError(
        f"no model {str(name)!r}: {hint}Give a checkpoint folder, a hub id (owner/name), or a bundled model: {models}"
    )
