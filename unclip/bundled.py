"""Where the files that come with the package lie, and which folder a model's name stands for. Reads no weights."""

import os
from pathlib import Path

from unclip.errors import CheckpointError, DataError, nearest

INDEX = "model_index.json"


def bundled(*parts: str) -> Path:
    """The path of a file or folder that comes with the package, for instance ``bundled("assets", "sprites")``.

    An installed package has them in ``unclip/_bundled/``, put there when the wheel was built; a checkout has them
    in the repository root. Raises DataError when it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_bundled", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join(parts)
    raise DataError(f"{name} did not come with this installation: reinstall unclip, or run from a full checkout")


def bundled_models() -> list[str]:
    """The names of the models that come with the package."""
    try:
        return sorted(path.parent.name for path in bundled("weights").glob(f"*/{INDEX}"))
    except DataError:
        return []


def find_checkpoint(name: str | Path) -> Path:
    """A folder, or the name of a bundled model -> its folder. Raises CheckpointError naming the known ones."""
    if os.path.isfile(Path(name) / INDEX):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    known = bundled_models()
    if str(name) in known:
        return bundled("weights", str(name))
    if os.path.isdir(name):
        raise CheckpointError(f"{name} has no {INDEX}: give the folder that holds it")
    near = nearest(name, known)
    hint = f"did you mean {near!r}? " if near else ""
    models = ", ".join(known) or "none"
    raise CheckpointError(f"no model {str(name)!r}: {hint}Give a checkpoint folder, or a bundled model: {models}")
