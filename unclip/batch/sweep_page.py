"""The results of a sweep: a labelled grid as PNG, and an HTML page on which the axes can be exchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from unclip.batch.estimate import Workload, cell_size
from unclip.batch.grid_file import write_grid
from unclip.batch.jobs import Settings, Task, check_rows
from unclip.batch.manifest import Entry, read_entries
from unclip.batch.output_folder import Folder
from unclip.batch.storage import disk_full
from unclip.batch.sweep import Axis, Sweep
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import UnclipError
from unclip.images.contact_sheet import size_of
from unclip.images.labelled_grid import MIN_CELL, GridPlan, labelled_grid, titles

UNKNOWN_SIZE = (256, 256)
"""The cell of a grid whose images have sizes that only their inputs determine, in the plan before they are made."""


@dataclass(frozen=True)
class Cell:
    """An image of a sweep: its combination, its entry in the manifest, its (width, height)."""

    index: int
    entry: Entry
    size: tuple[int, int]


def places(sweep: Sweep, index: int) -> tuple[int, ...]:
    """The place on each axis of a combination."""
    found: list[int] = []
    for axis in reversed(sweep.axes):
        index, place = divmod(index, len(axis.values))
        found.insert(0, place)
    return tuple(found)


def grid_plan(sweep: Sweep, cell: tuple[int, int]) -> GridPlan:
    """The layout of the grid: the first axis has the columns, the second the rows, the others the panels.

    Raises InputError for too many images for one grid.
    """
    first, *others = sweep.axes
    second = others[0] if others else None
    plan = GridPlan(
        columns=tuple(first.labels()),
        rows=tuple(second.labels()) if second else ("",),
        panels=titles([(axis.field, axis.labels()) for axis in others[1:]]),
        axes=(first.field, second.field if second else ""),
        cell=cell,
    )
    return plan.fitted()


def check_grid(sweep: Sweep) -> None:
    """Raise InputError for too many images for one grid, whatever their size."""
    grid_plan(sweep, (MIN_CELL, MIN_CELL))


def planned_cell(sweep: Sweep, settings: Settings, model: ModelIdentity) -> tuple[int, int]:
    """The (width, height) of the largest image, as far as it is known before the model is loaded."""
    workload = Workload()
    for line in check_rows(sweep.rows(), settings):
        if isinstance(line, Task):
            workload.add(line.request, line.count)
    return cell_size(workload, model) or UNKNOWN_SIZE


def write_results(sweep: Sweep, settings: Settings, folder: Folder) -> list[Path]:
    """Write grid.png and grid.html of the images that the folder has; returns their paths, none without images.

    Raises UnclipError if they cannot be written.
    """
    cells = list(_cells(sweep, settings, folder))
    if not cells:
        return []
    plan = grid_plan(sweep, (max(cell.size[0] for cell in cells), max(cell.size[1] for cell in cells)))
    images = {_panel_row_column(sweep, cell.index): folder.path / cell.entry.file for cell in cells}
    try:
        return [
            write_grid(folder.path, "grid.png", labelled_grid(plan, images)),
            write_grid(folder.path, "grid.html", page(sweep, cells).encode()),
        ]
    except OSError as error:
        raise disk_full(error, folder.path) from error


def page(sweep: Sweep, cells: list[Cell]) -> str:
    """An HTML page of the images in tables, with the scripts and styles that it needs, and links to the files."""
    figures = {cell.index: _figure(sweep, cell) for cell in cells}
    first, *others = sweep.axes
    second = others[0] if others else Axis("", ("",))
    rest = others[1:]
    tables = []
    for panel, title in enumerate(titles([(axis.field, axis.labels()) for axis in rest])):
        head = "".join(f"<th>{escape(label)}</th>" for label in first.labels())
        rows = []
        for row, label in enumerate(second.labels()):
            found = (figures.get(_index(sweep, panel, row, column), "") for column in range(len(first.values)))
            rows.append(f"<tr><th>{escape(label)}</th>{''.join(f'<td>{figure}</td>' for figure in found)}</tr>")
        corner = f"<th>{escape(' / '.join(filter(None, (second.field, first.field))))}</th>"
        tables.append(f"<h2>{escape(title)}</h2><table><tr>{corner}{head}</tr>{''.join(rows)}</table>")
    common = ", ".join(f"{name} {value}" for name, value in sweep.fields.items() if name != "prompt")
    title = escape(str(sweep.fields.get("prompt") or " | ".join(sweep.axes[-1].labels())))
    axes = json.dumps([{"field": axis.field, "labels": axis.labels()} for axis in sweep.axes]).replace("<", "\\u003c")
    text = files("unclip.batch").joinpath("sweep.html").read_text(encoding="utf-8")
    parts = {"title": title, "common": escape(common), "axes": axes, "tables": "\n".join(tables)}
    for name, part in parts.items():
        assert f"<!--{name}-->" in text
        text = text.replace(f"<!--{name}-->", part)  # no part has a comment: "<" is escaped
    return text


def _figure(sweep: Sweep, cell: Cell) -> str:
    entry, at = cell.entry, places(sweep, cell.index)
    labels = ", ".join(f"{axis.field} {axis.label(place)}" for axis, place in zip(sweep.axes, at, strict=True))
    text, file = escape(f"{labels}, seed {entry.seed}: {entry.prompt}"), escape(quote(entry.file))
    return (
        f'<figure data-at="{",".join(map(str, at))}"><a href="{file}"><img src="{file}" alt="{text}" title="{text}" '
        f'width="{cell.size[0]}" height="{cell.size[1]}" loading="lazy"></a></figure>'
    )


def _panel_row_column(sweep: Sweep, index: int) -> tuple[int, int, int]:
    """The cell of a combination on the grid."""
    column, *others = places(sweep, index)
    panel = 0
    for axis, place in zip(sweep.axes[2:], others[1:], strict=True):
        panel = panel * len(axis.values) + place
    return panel, others[0] if others else 0, column


def _index(sweep: Sweep, panel: int, row: int, column: int) -> int:
    """The combination of a cell on the grid."""
    lengths = [len(axis.values) for axis in sweep.axes]
    rows = lengths[1] if len(lengths) > 1 else 1
    return (column * rows + row) * math.prod(lengths[2:]) + panel


def _cells(sweep: Sweep, settings: Settings, folder: Folder) -> Iterator[Cell]:
    """The images of the sweep that the folder has and that can be read."""
    lines = (line for line in check_rows(sweep.rows(), settings) if isinstance(line, Task))
    indices = {f"{job.key:016x}": line.row.index for line in lines for job in line.jobs()}
    for entry in read_entries(folder.path):
        index = indices.pop(entry.key, None)
        if index is None:
            continue
        try:
            size = size_of(folder.path / entry.file)
        except UnclipError:
            continue
        yield Cell(index, entry, size)
