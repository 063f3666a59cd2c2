"""Contact sheets: many images in one. The size of a sheet is known before any image is generated."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from unclip.errors import InputError, UnclipError

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

    Source = Path | Image.Image

MAX_PIXELS = 89_478_485  # Pillow's own limit, above which it warns when the file is opened
GAP = 4  # pixels between cells
Frame = TypeVar("Frame")
LABEL = 14  # height in pixels of a label below an image


@dataclass(frozen=True)
class Layout:
    """The layout of a sheet. cell: (width, height) in pixels. label: height of the labels in pixels, or 0."""

    columns: int
    rows: int
    cell: tuple[int, int]
    label: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the sheet in pixels."""
        width, height = self.cell
        return self.columns * (width + GAP) - GAP, self.rows * (height + self.label + GAP) - GAP


def layout(count: int, cell: tuple[int, int], labels: bool) -> Layout:
    """A layout of `count` cells that is about square. Raises InputError for a sheet that would be too large."""
    columns = max(1, math.ceil(math.sqrt(count * cell[1] / cell[0])))
    found = Layout(columns, max(1, math.ceil(count / columns)), cell, LABEL if labels else 0)
    width, height = found.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"--grid of {count:,} images would have {width}x{height} pixels, and at most {MAX_PIXELS:,} in all "
            "can be written; leave it out, or make fewer or smaller images"
        )
    return found


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) of an image file that can be put on a sheet. Raises UnclipError for one that cannot be read."""
    return open_for_sheet(path).size


def sheet(images: Iterable[tuple[Source, str]], plan: Layout) -> bytes:
    """The bytes of a PNG of images with labels, in reading order, each image in the middle of its cell.

    Raises UnclipError for a file that cannot be read.
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", plan.size, "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LABEL - 4)
    width, height = plan.cell
    for i, (source, label) in enumerate(images):
        row, column = divmod(i, plan.columns)
        left, top = column * (width + GAP), row * (height + plan.label + GAP)
        image = open_for_sheet(source)
        image.thumbnail(plan.cell)
        canvas.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        if plan.label:
            draw.text((left, top + height), shorten(label, width, draw, font), fill="black", font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, format="PNG")
    return buffer.getvalue()


def animation(paths: Sequence[Path], milliseconds: int = 120) -> bytes:
    """The bytes of an endless GIF of image files, forwards and backwards.

    Raises UnclipError for a file that cannot be read.
    """
    frames = there_and_back([open_for_sheet(path) for path in paths])
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    return buffer.getvalue()


def there_and_back(frames: list[Frame]) -> list[Frame]:
    """The frames forwards and backwards, without their ends twice, so that they can be repeated."""
    return frames + frames[-2:0:-1]


def open_for_sheet(source: Source) -> Image.Image:
    """An image in sRGB, which a sheet of images with different colour profiles has, on white."""
    from unclip.images.pixels import to_srgb_on_white
    from unclip.images.reading import opened, upright

    if not isinstance(source, Path):
        return to_srgb_on_white(source)[0].copy()
    try:
        with opened(source, repr(str(source)), ("PNG", "JPEG", "WEBP")) as image:
            return to_srgb_on_white(upright(image))[0]
    except UnclipError as error:
        raise UnclipError(f"{str(source)!r} cannot be read") from error


def shorten(
    label: str, width: int, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> str:
    """A label on one line, shortened to `width` pixels."""
    text = " ".join(label.split())[:width]  # no letter is narrower than a pixel
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(f"{text}…", font=font) > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
