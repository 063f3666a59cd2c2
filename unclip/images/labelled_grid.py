"""A grid of images with axes: columns and rows with labels, and a panel for each combination of further axes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.errors import InputError
from unclip.images.contact_sheet import GAP, MAX_PIXELS, open_for_sheet, shorten

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

FONT = 14  # pixels
LINE = 20  # height in pixels of a line of text
MAX_LABEL = 240  # width in pixels of the labels of rows
MIN_CELL = 16  # pixels


@dataclass(frozen=True)
class GridPlan:
    """The layout of a grid, known before any image is made.

    columns, rows: their labels. panels: titles; one without a title if it is the only one. axes: names of the columns'
    and the rows' axis; "" for none. cell: (width, height) of an image on the grid, in pixels.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    panels: tuple[str, ...]
    axes: tuple[str, str]
    cell: tuple[int, int]

    @cached_property
    def margin(self) -> int:
        """Width in pixels of the labels of the rows."""
        labels = [label for label in (self.axes[1], *self.rows) if label]
        font = _font()
        return min(MAX_LABEL, max((round(font.getlength(label)) for label in labels), default=0) + 2 * GAP)

    @property
    def panel_size(self) -> tuple[int, int]:
        """(width, height) of a panel in pixels, with its title and its labels."""
        width = self.margin + len(self.columns) * (self.cell[0] + GAP)
        return width, (3 if any(self.panels) else 2) * LINE + len(self.rows) * (self.cell[1] + GAP)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the grid in pixels."""
        width, height = self.panel_size
        return width, len(self.panels) * height

    def fitted(self) -> GridPlan:
        """The same grid with cells small enough to be written. Raises InputError if there is no such size."""
        plan = self
        while plan.size[0] * plan.size[1] > MAX_PIXELS or max(plan.size) > 65_000:
            width, height = plan.cell[0] // 2, plan.cell[1] // 2
            if min(width, height) < MIN_CELL:
                count = len(self.columns) * len(self.rows) * len(self.panels)
                raise InputError(f"{count:,} images do not fit on one grid; vary fewer values at once")
            plan = GridPlan(self.columns, self.rows, self.panels, self.axes, (width, height))
        return plan


def labelled_grid(plan: GridPlan, images: Mapping[tuple[int, int, int], Path]) -> bytes:
    """The bytes of a PNG. images: files by (panel, row, column); a cell without one is crossed out.

    Raises UnclipError for a file that cannot be read.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", plan.size, "white")
    draw, font = ImageDraw.Draw(canvas), _font()
    for panel, title in enumerate(plan.panels):
        top = panel * plan.panel_size[1]
        if title:
            _write(draw, title, (GAP, top), plan.size[0], font)
            top += LINE
        _write(draw, plan.axes[0], (plan.margin, top), plan.size[0] - plan.margin, font)
        _write(draw, plan.axes[1], (GAP, top + LINE), plan.margin, font)
        for column, label in enumerate(plan.columns):
            left = plan.margin + column * (plan.cell[0] + GAP)
            _write(draw, label, (left, top + LINE), plan.cell[0], font)
        for row, label in enumerate(plan.rows):
            y = top + 2 * LINE + row * (plan.cell[1] + GAP)
            _write(draw, label, (GAP, y), plan.margin, font)
            for column in range(len(plan.columns)):
                x = plan.margin + column * (plan.cell[0] + GAP)
                _paste(canvas, draw, images.get((panel, row, column)), (x, y), plan.cell)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def _paste(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    path: Path | None,
    place: tuple[int, int],
    cell: tuple[int, int],
) -> None:
    """Paste an image into the middle of its cell, or cross the cell out."""
    (x, y), (width, height) = place, cell
    if path is None:
        right, bottom = x + width - 1, y + height - 1
        draw.rectangle((x, y, right, bottom), outline="silver")
        draw.line((x, y, right, bottom), fill="silver")
        draw.line((x, bottom, right, y), fill="silver")
        return
    image = open_for_sheet(path)
    image.thumbnail(cell)
    canvas.paste(image, (x + (width - image.width) // 2, y + (height - image.height) // 2))


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    place: tuple[int, int],
    width: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    if text:
        draw.text(place, shorten(text, width - GAP, draw, font), fill="black", font=font)


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(FONT)


def titles(axes: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """The titles of the panels: "seed 1, steps 4", ... of each combination; the last axis varies fastest."""
    found = [""]
    for name, labels in axes:
        found = [f"{before}{', ' if before else ''}{name} {label}" for before in found for label in labels]
    return tuple(found)
