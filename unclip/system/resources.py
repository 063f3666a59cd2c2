"""Find the files that come with the package."""

from pathlib import Path

from unclip.errors import DataError

COMPONENTS = "components.safetensors"
"""The principal components of embeddings, which a checkpoint may have, or get later."""


def bundled(*parts: str) -> Path:
    """The path of a file or folder that comes with the package, for instance ``bundled("assets", "sprites")``.

    An installed package has them in ``unclip/_bundled/``, put there when the wheel was built; a checkout has them
    in the repository root. Raises DataError when it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_bundled", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join(parts)
    raise DataError(f"{name} did not come with this installation: reinstall unclip, or run from a full checkout")
