"""The masked regions of a canvas that can be filled separately."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from unclip.modes.inpainting.canvas import KEEP, Box, Canvas

_CONTEXT = 1.5  # the side of a window over that of the region it repaints, and never less than

_MARGIN = 1.1

_MOST_PARTS = 1000  # more pieces than that are specks all over, and one region

SHRINK = 2  # a window of up to this many times the model's size is shrunk to it rather than cut up


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
    if not is_inpainting(canvas) or whole.window(canvas, size) is not None:
        return [whole]
    parts, count = list(_pieces(free, max(1, size // 4))), 0
    if len(parts) > _MOST_PARTS:
        return [whole]
    while len(parts) != count:
        count, parts = len(parts), _joined(parts, [part.seen(canvas, size) for part in parts])
    return sorted(parts)


def is_inpainting(canvas: Canvas) -> bool:
    """Whether nothing was added around the picture."""
    return canvas.origin == (0, 0, *canvas.size)


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
        side = min(max(size, round(_CONTEXT * region)), SHRINK * size, width, height)
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
