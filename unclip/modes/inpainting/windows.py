"""The positions of the windows of an edit, and the order in which they are generated."""

from collections.abc import Iterator, Sequence

import numpy as np

from unclip.modes.inpainting.canvas import Box, Canvas
from unclip.modes.inpainting.regions import MAX_SHRINK, Region, smallest_window


def place_windows(
    canvas: Canvas,
    size: int,
    cells: int,
    region: Region | None = None,
    *,
    least: int | None = None,
    separate_sides: bool = False,
) -> list[Box]:
    """The windows that cover a masked region, in the order in which they are generated.

    A small region gets one window with some context. A larger one gets windows of the model's size that overlap by
    half; the next one always has its known part closest to half, so that they grow outwards from the known pixels.
    These lie on a grid of `cells` a side, so that they can be denoised as one canvas; the last ones may extend past the
    canvas by a part of a cell, and all of them where it is narrower than a window.

    size: of the model's images, in pixels. cells: positions of the decoder's latent along a side. region: everything
    masked by default. least: as in `Region.single_window`. separate_sides: do not cover the margins of different sides
    by one window.
    """
    if not canvas.masked.any():
        return []
    region = Region.around(canvas.masked) if region is None else region
    window = region.single_window(canvas, size, least)
    covers_canvas = window is not None and window.side == max(canvas.size)
    if window is not None and (not canvas.has_margins or covers_canvas and not separate_sides):
        return [window]
    side = smallest_window(canvas, size)
    if separate_sides:  # a small canvas is divided: half of a side is enough for the margin there
        side = min(side, max(min(canvas.size), -(-max(canvas.size) // 2)))
    masked = canvas.masked & region.mask(canvas.masked.shape)
    return list(_order_outwards(masked, side, *(window_starts(length, side, cells) for length in masked.shape)))


def one_window_suffices(canvas: Canvas, windows: Sequence[Box]) -> bool:
    """Whether the windows see everything that matters: at most one, with all masked pixels and what surrounds them."""
    return not windows or len(windows) == 1 and (not canvas.has_margins or windows[0].side >= max(canvas.size))


def place_context_views(canvas: Canvas, windows: Sequence[Box], size: int) -> list[Box]:
    """The boxes in which a sketch is generated before some windows, in order. size: of the model's images, in pixels.

    A window contains only a part of the original, and an object that the prompt names may be in the rest: without the
    whole in one window, it would be generated twice. A context view contains the original and all the windows, and
    extends past the canvas where these are not square. It is at most twice the model's size; beyond that, there are
    several.
    """
    ends = [canvas.origin] + [(box.left, box.top, box.left + box.side, box.top + box.side) for box in windows]
    lows, highs = np.min(ends, axis=0)[:2].clip(min=0), np.max(ends, axis=0)[2:].clip(max=canvas.size)
    (left, top), (width, height) = lows.tolist(), (highs - lows).tolist()
    side = min(max(width, height), MAX_SHRINK * size)
    tops, lefts = (window_starts(length, side, side) for length in (height, width))
    masked = canvas.masked[top : top + height, left : left + width]
    return [Box(box.left + left, box.top + top, side) for box in _order_outwards(masked, side, tops, lefts)]


def _order_outwards(masked: np.ndarray, side: int, tops: list[int], lefts: list[int]) -> Iterator[Box]:
    """The windows at all combinations of tops and lefts that cover `masked` (`h w` bool), the next best one each time.

    The best window is the one whose known part is closest to half; earlier windows count as known, and pixels past the
    canvas do not count.
    """
    starts = [np.array(tops), np.array(lefts)]
    clipped = [np.clip([s, s + side], 0, length) for s, length in zip(starts, masked.shape, strict=True)]
    area = np.outer(*(ends[1] - ends[0] for ends in clipped))
    edges_y, edges_x = (np.unique([0, *ends.ravel()]) for ends in clipped)
    # Masked pixels in each cell between the edges of windows; a window is a rectangle of cells.
    cells = np.add.reduceat(np.add.reduceat(masked.astype(np.int64), edges_y[:-1], axis=0), edges_x[:-1], axis=1)
    (y0, y1), (x0, x1) = (np.searchsorted(edges, ends) for edges, ends in zip((edges_y, edges_x), clipped, strict=True))
    while cells.any():
        total = np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0)))  # summed-area table
        inside = total[np.ix_(y1, x1)] - total[np.ix_(y0, x1)] - total[np.ix_(y1, x0)] + total[np.ix_(y0, x0)]
        distance = np.where(inside > 0, abs(inside / area - 0.5), np.inf)
        y, x = np.unravel_index(distance.argmin(), distance.shape)
        yield Box(lefts[x], tops[y], side)
        cells[y0[y] : y1[y], x0[x] : x1[x]] = 0


def window_starts(length: int, side: int, cells: int) -> list[int]:
    """The starts of windows along a length: every half side, and at its end or a part of a cell beyond.

    A single window is centred on a length that is shorter.
    """
    if length < side:
        return [(length - side) // 2]
    last = -(-(length - side) * cells // side)  # in cells
    return sorted({round(cell * side / cells) for cell in (*range(0, last, max(1, cells // 2)), last)})
