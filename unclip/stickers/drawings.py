"""Drawings of an object: a bitmap of the atlas, or a vector drawing that is rendered at any size."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from unclip.errors import DataError

CACHED_SIDE = 128
"""Longest side in px of a rendering that is kept: larger ones are not worth their memory."""

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are exclusive


class Drawing(Protocol):
    """A drawing of one object. Its images have an alpha channel: straight ("RGBA") or premultiplied ("RGBa")."""

    @property
    def proportions(self) -> tuple[float, float]:
        """Width and height, relative to the longer side."""
        ...

    def scaled_size(self, longer_side: int) -> tuple[int, int]:
        """Width and height in px of the drawing whose longer side is ``longer_side``."""
        ...

    def render(self, width: int, height: int) -> Image.Image:
        """Return the drawing, stretched to that size. The image may be shared: do not change it."""
        ...

    def render_part(self, size: tuple[int, int], box: Box) -> Image.Image:
        """Return the part ``box`` of the drawing as it is at ``size``."""
        ...


@dataclass(frozen=True, eq=False)
class Bitmap:
    """A drawing of the atlas.

    Attributes:
        levels: The trimmed sprite at full size (longer side 120 px), at a half and at a quarter of it. Premultiplied
            ("RGBa"), so that resizing does not bleed the colour of hidden pixels into edges.
    """

    levels: tuple[Image.Image, ...]

    @property
    def proportions(self) -> tuple[float, float]:
        """Width and height, relative to the longer side."""
        width, height = self.levels[0].size
        longer = max(width, height)
        return width / longer, height / longer

    def scaled_size(self, longer_side: int) -> tuple[int, int]:
        """Width and height in px of the drawing whose longer side is ``longer_side``."""
        width, height = self.levels[0].size
        scale = longer_side / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def render(self, width: int, height: int) -> Image.Image:
        """Return the drawing, resized to that size."""
        return self._level(max(width, height)).resize((width, height), Image.Resampling.BICUBIC)

    def render_part(self, size: tuple[int, int], box: Box) -> Image.Image:
        """Return the part ``box`` of the drawing as it is at ``size``."""
        return self.render(*size).crop(box)

    def _level(self, longer_side: int) -> Image.Image:
        """Return the smallest level with at least 1.5 times ``longer_side`` px, else the full size.

        It is small enough to resize quickly, and large enough that the box filter it was reduced with does not show.
        """
        return next((each for each in reversed(self.levels) if max(each.size) >= 1.5 * longer_side), self.levels[0])


@dataclass(frozen=True, eq=False)
class VectorDrawing:
    """A vector drawing.

    Attributes:
        box: Left, top, width and height of its visible part, in the units of the SVG.
        body: What is inside the svg element.
    """

    box: tuple[float, float, float, float]
    body: str

    @property
    def proportions(self) -> tuple[float, float]:
        """Width and height, relative to the longer side."""
        _, _, width, height = self.box
        longer = max(width, height)
        return width / longer, height / longer

    def scaled_size(self, longer_side: int) -> tuple[int, int]:
        """Width and height in px of the drawing whose longer side is ``longer_side``."""
        width, height = self.proportions
        return max(1, round(width * longer_side)), max(1, round(height * longer_side))

    def render(self, width: int, height: int) -> Image.Image:
        """Return the drawing, rendered at that size. Raises DataError if resvg-py is not installed."""
        if max(width, height) > CACHED_SIDE:
            return render_svg(self.body, self.box, (width, height))
        return _render_cached(self, width, height)

    def render_part(self, size: tuple[int, int], box: Box) -> Image.Image:
        """Return the part ``box`` of the drawing as it is at ``size``, without rendering the rest."""
        left, top, right, bottom = box
        x, y = self.box[2] / size[0], self.box[3] / size[1]  # units of a pixel
        part = self.box[0] + left * x, self.box[1] + top * y, (right - left) * x, (bottom - top) * y
        return render_svg(self.body, part, (right - left, bottom - top))


@functools.lru_cache(maxsize=32_768)  # of 20 to 56 px: at most about 200 MB
def _render_cached(drawing: VectorDrawing, width: int, height: int) -> Image.Image:
    return render_svg(drawing.body, drawing.box, (width, height))


def load_renderer() -> Any:
    """Import and return resvg_py, which renders vector drawings.

    Raises:
        DataError: resvg-py is not installed.
    """
    try:
        import resvg_py  # noqa: PLC0415 (only training and evaluation render vector drawings)
    except ImportError:
        raise DataError(
            'vector sprites need resvg-py to be rendered: pip install "unclip[train]", or use styles = "noto"'
        ) from None
    return resvg_py


def render_svg(body: str, box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """Return the part ``box`` (left, top, width, height) of an SVG's canvas, stretched to ``size``: straight RGBA.

    Raises:
        DataError: resvg-py is not installed.
    """
    width, height = size
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{" ".join(map(str, box))}" preserveAspectRatio="none">{body}</svg>'
    )
    png = load_renderer().svg_to_bytes(svg_string=svg, width=width, height=height, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png)), formats=("PNG",)) as image:
        return image.convert("RGBA")
