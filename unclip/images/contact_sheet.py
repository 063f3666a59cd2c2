"""Contact sheets: many pictures in one, whose size is known before any of them is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.errors import InputError, UnclipError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

MAX_PIXELS = 89_478_485  # Pillow's own limit: what is larger could not be opened again without a warning
GAP = 4
LABEL = 14  # pixels below a picture


@dataclass(frozen=True)
class Layout:
    """columns and rows of cells of (width, height) pixels; size of the sheet; pixels for a label, or 0."""

    columns: int
    rows: int
    cell: tuple[int, int]
    label: int

    @property
    def size(self) -> tuple[int, int]:
        width, height = self.cell
        return self.columns * (width + GAP) - GAP, self.rows * (height + self.label + GAP) - GAP


def layout(count: int, cell: tuple[int, int], labels: bool) -> Layout:
    """About as wide as high. Raises InputError for a sheet that would be too large."""
    columns = max(1, math.ceil(math.sqrt(count * cell[1] / cell[0])))
    found = Layout(columns, max(1, math.ceil(count / columns)), cell, LABEL if labels else 0)
    width, height = found.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"--grid of {count:,} pictures would have {width}x{height} pixels, and at most {MAX_PIXELS:,} in all "
            "can be written; leave it out, or draw fewer or smaller pictures"
        )
    return found


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of a picture, from its header."""
    from PIL import Image

    with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
        return image.size


def sheet(pictures: Iterable[tuple[Path, str]], plan: Layout) -> bytes:
    """A PNG of the pictures in files, in reading order, each in the middle of its cell, with its label below.

    Raises UnclipError for a file that cannot be read.
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", plan.size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LABEL - 4)
    width, height = plan.cell
    for i, (path, label) in enumerate(pictures):
        row, column = divmod(i, plan.columns)
        left, top = column * (width + GAP), row * (height + plan.label + GAP)
        picture = _opened(path)
        picture.thumbnail(plan.cell)
        canvas.paste(picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2))
        if plan.label:
            draw.text((left, top + height), _fitting(label, width, draw, font), fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def animation(paths: Sequence[Path], milliseconds: int = 120) -> bytes:
    """A GIF of pictures in files, there and back, without end. Raises UnclipError for a file that cannot be read."""
    frames = [_opened(path) for path in paths]
    frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            return image.convert("RGB")
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise UnclipError(f"the sheet: {str(path)!r} cannot be read; run the same command again") from error


def _fitting(label: str, width: int, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    """As much of a label as `width` pixels show, on one line."""
    text = " ".join(label.split())[:width]  # no letter is narrower than a pixel
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
