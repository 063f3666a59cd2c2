"""Which parts of a canvas a model of a certain size looks at, one after another."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from unclip.canvas import KEEP, Box, Canvas

_CONTEXT = 1.5  # the side of a window over that of the region it repaints, and never less than
_MARGIN = 1.1
_MOST_PARTS = 1000  # more pieces than that are specks all over, and one region
_SHRINK = 2  # a window of up to this many times the model's size is shrunk to it rather than cut up


def holes(canvas: Canvas, size: int) -> list["Extent"]:
    """Where a canvas is free, in parts that a model of `size` pixels can paint one after another.

    What one window sees as a whole is one part, and so is what is around a picture. Else parts are so far from each
    other that no window of one has anything of another in it: two spots far apart are not one region, with all that is
    between them.
    """
    free = canvas.known < KEEP
    if not free.any():
        return []
    whole = Extent.of(free)
    if not _is_whole(canvas) or whole.window(canvas, size) is not None:
        return [whole]
    parts, count = list(_pieces(free, max(1, size // 4))), 0
    if len(parts) > _MOST_PARTS:
        return [whole]
    while len(parts) != count:
        count, parts = len(parts), _joined(parts, [part.seen(canvas, size) for part in parts])
    return sorted(parts)


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
    if window is not None and (_is_whole(canvas) or window.side == max(canvas.size) and not apart):
        return [window]
    side = min(size, *canvas.size)
    return list(_growing(free & hole.mask(free.shape), side, *(_starts(length, side, cells) for length in free.shape)))


def sees_all(canvas: Canvas, plan: Sequence[Box]) -> bool:
    """Whether one window is enough: it has all that is free in it, and what is around that, or all of the canvas."""
    return not plan or len(plan) == 1 and (_is_whole(canvas) or plan[0].side >= max(canvas.size))


def _is_whole(canvas: Canvas) -> bool:
    """Whether nothing was added around the picture."""
    return canvas.origin == (0, 0, *canvas.size)


def views(canvas: Canvas, plan: Sequence[Box], size: int) -> list[Box]:
    """What a model of `size` pixels looks at before it paints some windows of a canvas, in their order.

    A window has but a part of the original in it, and what a prompt names may be in the rest: drawn without a look at
    the whole it is there twice. A view has the original in it and all those windows, and reaches out of the canvas
    where these are not a square; but it is of no more than twice the model's size, and then there are several.
    """
    ends = [canvas.origin] + [(box.left, box.top, box.left + box.side, box.top + box.side) for box in plan]
    lows, highs = np.min(ends, axis=0)[:2], np.max(ends, axis=0)[2:].clip(max=canvas.size)
    (left, top), (width, height) = lows.tolist(), (highs - lows).tolist()
    side = min(max(width, height), _SHRINK * min(size, width, height))
    # Around what is shorter than a view there is as much beyond either end.
    tops, lefts = (
        _starts(length, side, side) if length > side else [(length - side) // 2] for length in (height, width)
    )
    free = canvas.known[top : top + height, left : left + width] < KEEP
    return [Box(box.left + left, box.top + top, side) for box in _growing(free, side, tops, lefts)]


class Extent(NamedTuple):
    """The rows and columns of some pixels, from the first to one beyond the last."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, chosen: np.ndarray) -> "Extent":
        """That of what is chosen of `h w` bool."""
        rows, columns = np.flatnonzero(chosen.any(1)).tolist(), np.flatnonzero(chosen.any(0)).tolist()
        return cls(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)

    def window(self, canvas: Canvas, size: int) -> Box | None:
        """The one window that sees it whole with some context, or all of a small canvas; None where there is none."""
        width, height = canvas.size
        region = max(self.right - self.left, self.bottom - self.top)
        side = min(max(size, round(_CONTEXT * region)), _SHRINK * size, width, height)
        if region * _MARGIN > side and not region == side == width == height:
            return None
        x = min(max(0, (self.left + self.right - side) // 2), width - side)
        y = min(max(0, (self.top + self.bottom - side) // 2), height - side)
        return Box(x, y, side)

    def seen(self, canvas: Canvas, size: int) -> "Extent":
        """It and what is in any window that has some of it."""
        window = self.window(canvas, size)
        if window is None:
            return Extent(self.top - size, self.left - size, self.bottom + size, self.right + size)
        return Extent(window.top, window.left, window.top + window.side, window.left + window.side)

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """1 in it, of so many rows and columns, `h w` bool."""
        inside = np.zeros(shape, bool)
        inside[self.top : self.bottom, self.left : self.right] = True
        return inside


def _joined(parts: Sequence[Extent], seen: Sequence[Extent]) -> list[Extent]:
    """The parts, those as one that are joined by what is seen around them."""
    lows, highs = np.array(seen)[:, :2], np.array(seen)[:, 2:]
    left, joined = np.ones(len(parts), bool), []
    while left.any():
        reached, new = np.zeros(len(parts), bool), [int(left.argmax())]
        while new:
            reached[new] = True
            meets = [(np.maximum(lows, lows[i]) < np.minimum(highs, highs[i])).all(1) for i in new]
            new = np.flatnonzero(np.any(meets, axis=0) & ~reached).tolist()
        left &= ~reached
        some = np.array(parts)[reached]
        joined.append(Extent(*some[:, :2].min(0).tolist(), *some[:, 2:].max(0).tolist()))
    return joined


def _pieces(free: np.ndarray, cell: int) -> Iterator[Extent]:
    """The extents of what is free in cells of so many pixels that touch one another, also at a corner."""
    starts = [range(0, length, cell) for length in free.shape]
    coarse = np.logical_or.reduceat(np.logical_or.reduceat(free, starts[0], axis=0), starts[1], axis=1)
    left = set(zip(*(axis.tolist() for axis in coarse.nonzero()), strict=True))
    while left:
        piece, reached = [], [left.pop()]
        while reached:
            y, x = reached.pop()
            piece.append((y, x))
            near = left & {(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}
            left -= near
            reached += near
        (top, first), (bottom, last) = (
            (np.array(piece).min(0) * cell).tolist(),
            (np.array(piece).max(0) * cell).tolist(),
        )
        part = Extent.of(free[top : bottom + cell, first : last + cell])
        yield Extent(part.top + top, part.left + first, part.bottom + top, part.right + first)


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
