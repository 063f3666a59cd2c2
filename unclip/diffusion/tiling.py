"""A wrapper of x0 for what is larger than a network draws: many windows, denoised as one picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction


@dataclass(frozen=True)
class Tiling:
    """Square windows on a larger picture, in positions of x: their corners (from the top, from the left) and side."""

    height: int
    width: int
    side: int
    corners: tuple[tuple[int, int], ...]

    def cut(self, x: Tensor) -> Tensor:
        """The windows `n c s s` of x `1 c H W`; or, of what has several values a position, as many more of each."""
        scale = x.shape[-1] // self.width
        return torch.cat([x[..., *self.slices(corner, scale)] for corner in self.corners])

    def lay(self, windows: Tensor, fill: float) -> Tensor:
        """The picture `1 c H W` with windows `n c s s` in it, the later over the earlier, and `fill` where none is."""
        scale = windows.shape[-1] // self.side
        whole = windows.new_full((1, windows.shape[1], scale * self.height, scale * self.width), fill)
        for window, corner in zip(windows, self.corners, strict=True):
            whole[..., *self.slices(corner, scale)] = window
        return whole

    def slices(self, corner: tuple[int, int], scale: int = 1) -> tuple[slice, slice]:
        """Rows and columns of the window at a corner, in x at so many values a position."""
        top, left = (scale * start for start in corner)
        return slice(top, top + scale * self.side), slice(left, left + scale * self.side)


def tiled(denoises: Sequence[Denoise], tiling: Tiling, together: int) -> Denoise:
    """Denoise x `1 c H W` by windows: where they overlap x0 is their mean, which each leaves towards its own edge.

    MultiDiffusion (Bar-Tal et al. 2023, arXiv:2302.08113), at x0. denoises: of `together` windows each, in their order,
    and the last of the rest. Where there is no window x0 is 0.
    """

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        windows = tiling.cut(x).split(together)
        parts = [one(part, t.expand(len(part))) for one, part in zip(denoises, windows, strict=True)]
        x0 = _joined([part.x0 for part in parts], tiling)
        learned = parts[0].variance is not None
        return Prediction(x0, _joined([part.variance for part in parts], tiling) if learned else None)

    return denoise


def _joined(parts: Sequence[Tensor], tiling: Tiling) -> Tensor:
    """Windows, in parts `n c s s` -> `1 c H W`."""
    windows = torch.cat(list(parts))
    from_edge = torch.arange(tiling.side, device=windows.device) + 0.5
    slope = torch.minimum(from_edge, tiling.side - from_edge)
    weight = slope[:, None] * slope  # s s
    total = windows.new_zeros(1, windows.shape[1], tiling.height, tiling.width)
    weights = windows.new_zeros(tiling.height, tiling.width)
    for window, corner in zip(windows, tiling.corners, strict=True):
        total[..., *tiling.slices(corner)] += weight * window
        weights[tiling.slices(corner)] += weight
    return total / weights.clamp(min=weight.min())
