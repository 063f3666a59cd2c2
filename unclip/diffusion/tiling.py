"""Denoise one large canvas by overlapping windows of the network's size."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.diffusion.chunking import DenoiserOf, join_predictions, split_batch
from unclip.diffusion.denoiser import Denoise, Prediction


@dataclass(frozen=True)
class Tiling:
    """Square windows of a canvas. All lengths are in positions of x (latent positions).

    height, width: of the canvas. side: of every window. corners: (top, left) of each window.
    rows: for each window, the row of the conditioning that it uses.
    """

    height: int
    width: int
    side: int
    corners: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]

    def cut(self, x: Tensor, which: slice = slice(None)) -> Tensor:
        """The windows `n c s s` of a canvas `1 c H W`, which may have several values a position (pixels, say)."""
        scale = x.shape[-1] // self.width
        return torch.cat([x[..., *self.slices(corner, scale)] for corner in self.corners[which]])

    def assemble(self, windows: Sequence[Tensor], fill: float) -> Tensor:
        """A canvas `1 c H W` from windows `c s s`: later ones cover earlier ones, `fill` covers the rest."""
        scale = windows[0].shape[-1] // self.side
        canvas = windows[0].new_full((1, len(windows[0]), scale * self.height, scale * self.width), fill)
        for window, corner in zip(windows, self.corners, strict=True):
            canvas[..., *self.slices(corner, scale)] = window
        return canvas

    def slices(self, corner: tuple[int, int], scale: int = 1) -> tuple[slice, slice]:
        """Rows and columns of the window at a corner, for a canvas with `scale` values a position."""
        top, left = (scale * start for start in corner)
        return slice(top, top + scale * self.side), slice(left, left + scale * self.side)


def tiled(denoiser_of: DenoiserOf, tiling: Tiling, chunk_size: int) -> Denoise:
    """A denoiser of a canvas `1 c H W` that averages the x0 of overlapping windows, at most `chunk_size` at a time.

    The weight of a window falls linearly towards its edges, so that no edge shows. Positions in no window get x0 = 0.
    MultiDiffusion (Bar-Tal et al. 2023, arXiv:2302.08113), applied to x0.

    denoiser_of: makes the denoiser for a slice of the windows.
    """
    from_edge = torch.arange(tiling.side) + 0.5
    slope = torch.minimum(from_edge, tiling.side - from_edge)
    weight = slope[:, None] * slope  # s s
    total = torch.zeros(tiling.height, tiling.width)
    for corner in tiling.corners:
        total[tiling.slices(corner)] += weight
    total = total.clamp(min=weight.min())

    def average(chunks: Sequence[Tensor]) -> Tensor:  # each n c s s -> 1 c H W
        canvas = chunks[0].new_zeros(1, chunks[0].shape[1], tiling.height, tiling.width)
        for window, corner in zip((window for chunk in chunks for window in chunk), tiling.corners, strict=True):
            canvas[..., *tiling.slices(corner)] += weight.to(window) * window
        return canvas / total.to(canvas)

    chunks = split_batch(denoiser_of, len(tiling.corners), chunk_size)

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        predictions = []
        for which, denoise_chunk in chunks():
            windows = tiling.cut(x, which)  # n c s s
            predictions.append(denoise_chunk(windows, t.expand(len(windows))))
        return join_predictions(predictions, average)

    return denoise
