"""Which parts of a canvas a model of a certain size looks at, one after another."""

from collections.abc import Iterator, Sequence

import numpy as np

from unclip.modes.inpainting.canvas import KEEP, Box, Canvas
from unclip.modes.inpainting.regions import SHRINK, Extent, is_inpainting


def windows(canvas: Canvas, size: int, cells: int, hole: "Extent | None" = None, *, apart: bool = False) -> list[Box]:
    """The windows in which a model of `size` pixels paints what is free, or one of its `holes`, in their order.

    One window with some context, where the region is small enough to be seen as a whole; else windows of the model's
    size that overlap by half, each where it finds closest to half of itself known already: so they grow outwards from
    what is given. Those lie on a grid of so many `cells` a side, that they can be drawn as one picture, for which the
    last may reach out of the canvas by a part of a cell, below and on the right. apart: what is beyond one side is not
    to be seen as a whole with what is beyond another.
    """
    free = canvas.known < KEEP
    if not free.any():
        return []
    hole = hole or Extent.of(free)
    window = hole.window(canvas, size)
    if window is not None and (is_inpainting(canvas) or window.side == max(canvas.size) and not apart):
        return [window]
    side = min(size, *canvas.size)
    return list(_growing(free & hole.mask(free.shape), side, *(_starts(length, side, cells) for length in free.shape)))


def sees_all(canvas: Canvas, plan: Sequence[Box]) -> bool:
    """Whether one window is enough: it has all that is free in it, and what is around that, or all of the canvas."""
    return not plan or len(plan) == 1 and (is_inpainting(canvas) or plan[0].side >= max(canvas.size))


def views(canvas: Canvas, plan: Sequence[Box], size: int) -> list[Box]:
    """What a model of `size` pixels looks at before it paints some windows of a canvas, in their order.

    A window has but a part of the original in it, and what a prompt names may be in the rest: drawn without a look at
    the whole it is there twice. A view has the original in it and all those windows, and reaches out of the canvas
    where these are not a square; but it is of no more than twice the model's size, and then there are several.
    """
    ends = [canvas.origin] + [(box.left, box.top, box.left + box.side, box.top + box.side) for box in plan]
    lows, highs = np.min(ends, axis=0)[:2], np.max(ends, axis=0)[2:].clip(max=canvas.size)
    (left, top), (width, height) = lows.tolist(), (highs - lows).tolist()
    side = min(max(width, height), SHRINK * min(size, width, height))
    # Around what is shorter than a view there is as much beyond either end.
    tops, lefts = (
        _starts(length, side, side) if length > side else [(length - side) // 2] for length in (height, width)
    )
    free = canvas.known[top : top + height, left : left + width] < KEEP
    return [Box(box.left + left, box.top + top, side) for box in _growing(free, side, tops, lefts)]


def _growing(free: np.ndarray, side: int, tops: list[int], lefts: list[int]) -> Iterator[Box]:
    """Windows that cover `free` (`h w` bool), those first of which half is known, counting those before as known.

    What lies out of the canvas does not count.
    """
    starts = [np.array(tops), np.array(lefts)]
    clipped = [np.clip([s, s + side], 0, length) for s, length in zip(starts, free.shape, strict=True)]  # ends, windows
    area = np.outer(*(ends[1] - ends[0] for ends in clipped))
    edges_y, edges_x = (np.unique([0, *ends.ravel()]) for ends in clipped)
    # free pixels of every cell between the edges of windows; a window is a rectangle of cells
    cells = np.add.reduceat(np.add.reduceat(free.astype(np.int64), edges_y[:-1], axis=0), edges_x[:-1], axis=1)
    (y0, y1), (x0, x1) = (np.searchsorted(edges, ends) for edges, ends in zip((edges_y, edges_x), clipped, strict=True))
    while cells.any():
        total = np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # of the cells above and to the left
        inside = total[np.ix_(y1, x1)] - total[np.ix_(y0, x1)] - total[np.ix_(y1, x0)] + total[np.ix_(y0, x0)]
        distance = np.where(inside > 0, abs(inside / area - 0.5), np.inf)
        y, x = np.unravel_index(distance.argmin(), distance.shape)
        yield Box(lefts[x], tops[y], side)
        cells[y0[y] : y1[y], x0[x] : x1[x]] = 0


def _starts(length: int, side: int, cells: int) -> list[int]:
    """Where windows of a side begin on a length: every half side and flush with its end, or a part of a cell beyond."""
    last = -(-max(0, length - side) * cells // side)  # in cells, as the others are
    return sorted({round(cell * side / cells) for cell in (*range(0, last, max(1, cells // 2)), last)})
