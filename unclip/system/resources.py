"""Locate files that are distributed with the package."""

from pathlib import Path

from unclip.errors import DataError

COMPONENTS = "components.safetensors"
"""File of a checkpoint folder with the principal components of its embeddings; it may be absent or added later."""


def bundled(*parts: str) -> Path:
    """The path of a file or folder distributed with the package, for instance ``bundled("assets", "sprites")``.

    An installed package has it in ``unclip/_bundled/``, where the wheel build puts it; a checkout has it in the
    repository root. Raises DataError if it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_bundled", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join(parts)
    raise DataError(f"{name} is missing from this installation: reinstall unclip, or run from a full checkout")
