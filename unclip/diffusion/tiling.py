"""Wrappers of x0 for what is too much at once: a batch in parts, and many windows of one picture as that picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.diffusion.chunking import parts_of
from unclip.diffusion.denoiser import Denoise, Prediction


@dataclass(frozen=True)
class Tiling:
    """Square windows on a larger picture, in positions of x: their corners (from the top, from the left) and side.

    rows: which row of a conditioning each window has.
    """

    height: int
    width: int
    side: int
    corners: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]

    def cut(self, x: Tensor, which: slice = slice(None)) -> Tensor:
        """Windows `n c s s` of x `1 c H W`; or, of what has several values a position, as many more of each."""
        scale = x.shape[-1] // self.width
        return torch.cat([x[..., *self.slices(corner, scale)] for corner in self.corners[which]])

    def lay(self, windows: Sequence[Tensor], fill: float) -> Tensor:
        """The picture `1 c H W` with windows `c s s` in it, the later over the earlier, and `fill` where none is."""
        scale = windows[0].shape[-1] // self.side
        whole = windows[0].new_full((1, len(windows[0]), scale * self.height, scale * self.width), fill)
        for window, corner in zip(windows, self.corners, strict=True):
            whole[..., *self.slices(corner, scale)] = window
        return whole

    def slices(self, corner: tuple[int, int], scale: int = 1) -> tuple[slice, slice]:
        """Rows and columns of the window at a corner, in x at so many values a position."""
        top, left = (scale * start for start in corner)
        return slice(top, top + scale * self.side), slice(left, left + scale * self.side)


def tiled(denoise_some: Callable[[slice], Denoise], tiling: Tiling, together: int) -> Denoise:
    """Denoise x `1 c H W` by windows: where they overlap x0 is their mean, which each leaves towards its own edge.

    MultiDiffusion (Bar-Tal et al. 2023, arXiv:2302.08113), at x0. denoise_some: as in `in_parts`, of the windows. Where
    there is no window x0 is 0.
    """
    from_edge = torch.arange(tiling.side) + 0.5
    slope = torch.minimum(from_edge, tiling.side - from_edge)
    weight = slope[:, None] * slope  # s s
    weights = torch.zeros(tiling.height, tiling.width)
    for corner in tiling.corners:
        weights[tiling.slices(corner)] += weight
    weights = weights.clamp(min=weight.min())

    def joined(parts: Sequence[Tensor]) -> Tensor:  # of n c s s -> 1 c H W
        whole = parts[0].new_zeros(1, parts[0].shape[1], tiling.height, tiling.width)
        for window, corner in zip((window for part in parts for window in part), tiling.corners, strict=True):
            whole[..., *tiling.slices(corner)] += weight.to(window) * window
        return whole / weights.to(whole)

    parts = parts_of(denoise_some, len(tiling.corners), together)

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        predicted = []
        for part, denoise_part in parts():
            windows = tiling.cut(x, part)
            predicted.append(denoise_part(windows, t.expand(len(windows))))
        learned = predicted[0].variance is not None
        x0 = joined([prediction.x0 for prediction in predicted])
        return Prediction(x0, joined([prediction.variance for prediction in predicted]) if learned else None)

    return denoise
