"""The contact sheet of a run, and the page of a sweep, in their output folder."""

from __future__ import annotations

from pathlib import Path

from unclip.batch.manifest import PRIVATE
from unclip.system.files import write_atomic, write_json, write_new
from unclip.system.json_values import parse_json

GRIDS = {".png": "grid.json", ".html": "grid-page.json"}
"""The records of the contact sheet and of the page that a run wrote, by their suffix."""


def write_grid(folder: Path, name: str, data: bytes) -> Path:
    """Write the contact sheet of a run, or the page of a sweep. It replaces an earlier run's, and no other file."""
    suffix = Path(name).suffix
    path = find_grid(folder, suffix)
    if path is None:
        path = write_new(folder / name, data)
    else:
        write_atomic(path, data)
    write_json(folder / PRIVATE / GRIDS[suffix], {"file": path.name, "bytes": len(data)})
    return path


def find_grid(path: str | Path, suffix: str = ".png") -> Path | None:
    """The contact sheet that an earlier run of a folder wrote, or its page; None if it is missing or was changed."""
    try:
        grid = parse_json((Path(path) / PRIVATE / GRIDS[suffix]).read_bytes())
        name = Path(grid["file"]).name
        found = Path(path) / name
        is_grid = name.startswith("grid") and name.endswith(suffix) and not found.is_symlink()
        return found if is_grid and found.stat().st_size == grid["bytes"] else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
