"""The masked regions of a canvas: parts that are far enough apart to be generated separately."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from unclip.modes.inpainting.canvas import Box, Canvas

MAX_SHRINK = 2
"""A window of up to this many times the model's size is shrunk to it; a larger region gets several windows."""
_CONTEXT = 1.5  # side of a window as a multiple of its region
_MIN_CONTEXT = 1.1
_MAX_REGIONS = 1000  # more components than that are noise in the mask, and one region


class Region(NamedTuple):
    """A rectangle of a canvas in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, pixels: np.ndarray) -> "Region":
        """The bounding rectangle of the True pixels of `h w` bool."""
        rows, columns = np.flatnonzero(pixels.any(1)).tolist(), np.flatnonzero(pixels.any(0)).tolist()
        return cls(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)

    def single_window(self, canvas: Canvas, size: int, least: int | None = None) -> Box | None:
        """The window that contains the region with some context, or a whole small canvas; None if one is not enough.

        It extends past a canvas that is narrower than the model's images. size: of these, in pixels. least: of the
        smallest images that the model generates at full detail, where they are smaller; by default, `size`.
        """
        region = max(self.right - self.left, self.bottom - self.top)
        least = smallest_window(canvas, size if least is None else least)
        side = min(max(least, round(_CONTEXT * region)), max(least, min(MAX_SHRINK * size, *canvas.size)))
        if region * _MIN_CONTEXT > side and side < max(canvas.size):
            return None
        width, height = canvas.size
        return Box(
            place_around(self.left, self.right, side, width), place_around(self.top, self.bottom, side, height), side
        )

    def reach(self, canvas: Canvas, size: int, least: int | None = None) -> "Region":
        """The region and everything that is in any window with a part of it. Arguments as `single_window`."""
        window = self.single_window(canvas, size, least)
        if window is None:
            return Region(self.top - size, self.left - size, self.bottom + size, self.right + size)
        return Region(window.top, window.left, window.top + window.side, window.left + window.side)

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """True inside the region, `h w` bool."""
        inside = np.zeros(shape, bool)
        inside[self.top : self.bottom, self.left : self.right] = True
        return inside


def smallest_window(canvas: Canvas, size: int) -> int:
    """The side of the smallest window: the model's `size`, or of a canvas that is smaller, its longer side.

    Not the shorter side, so that the number of windows of a thin canvas depends on its area.
    """
    return min(size, max(canvas.size))


def place_around(low: int, high: int, side: int, length: int) -> int:
    """The start of a window of `side` pixels around low .. high, within `length`; it is centred on a shorter length."""
    return (length - side) // 2 if length < side else min(max(0, (low + high - side) // 2), length - side)


def masked_regions(canvas: Canvas, size: int, least: int | None = None) -> list[Region]:
    """The regions of a canvas that a model of `size` pixels can generate one after another.

    Everything that fits in one window is one region, and so are all margins of an outpainting. Otherwise, regions are
    so far apart that no window of one contains a part of another: two distant spots do not become one large region.
    Arguments as `Region.single_window`.
    """
    if not canvas.masked.any():
        return []
    least = size if least is None else least
    whole = Region.around(canvas.masked)
    if canvas.has_margins or whole.single_window(canvas, least) is not None:
        return [whole]
    regions, count = list(_components(canvas.masked, max(1, least // 4))), 0
    if len(regions) > _MAX_REGIONS:
        return [whole]
    while len(regions) != count:
        count, regions = len(regions), _merge(regions, [region.reach(canvas, size, least) for region in regions])
    return sorted(regions)


def _merge(regions: Sequence[Region], reaches: Sequence[Region]) -> list[Region]:
    """The regions, with those whose reaches overlap merged into one."""
    lows, highs = np.array(reaches)[:, :2], np.array(reaches)[:, 2:]
    left, merged = np.ones(len(regions), bool), []
    while left.any():
        connected, new = np.zeros(len(regions), bool), [int(left.argmax())]
        while new:
            connected[new] = True
            overlaps = [(np.maximum(lows, lows[i]) < np.minimum(highs, highs[i])).all(1) for i in new]
            new = np.flatnonzero(np.any(overlaps, axis=0) & ~connected).tolist()
        left &= ~connected
        group = np.array(regions)[connected]
        merged.append(Region(*group[:, :2].min(0).tolist(), *group[:, 2:].max(0).tolist()))
    return merged


def _components(masked: np.ndarray, cell: int) -> Iterator[Region]:
    """The connected components of `h w` bool, coarsened to cells of `cell` pixels; diagonal neighbours connect."""
    starts = [range(0, length, cell) for length in masked.shape]
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(masked, starts[0], axis=0), starts[1], axis=1)
    left = set(zip(*(axis.tolist() for axis in coarse.nonzero()), strict=True))
    while left:
        component, reached = [], [left.pop()]
        while reached:
            y, x = reached.pop()
            component.append((y, x))
            neighbours = left & {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
            left -= neighbours
            reached += neighbours
        top, first = (np.array(component).min(0) * cell).tolist()
        bottom, last = (np.array(component).max(0) * cell).tolist()
        region = Region.around(masked[top : bottom + cell, first : last + cell])
        yield Region(region.top + top, region.left + first, region.bottom + top, region.right + first)
