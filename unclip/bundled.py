"""Where the files that come with the package lie: weights, sprites, samples."""

from __future__ import annotations

from pathlib import Path

from .errors import DataError


def bundled(*parts: str) -> Path:
    """The path of a file or folder that comes with the package: ``bundled("assets", "sprites")``.

    An installed package has them in ``unclip/_bundled/``, put there when the wheel was built; a checkout has
    them in the repository root.

    Raises:
        DataError: it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_bundled", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join(parts)
    raise DataError(f"{name} did not come with this installation: reinstall unclip, or run from a full checkout")
