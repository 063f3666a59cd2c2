"""No seam between what was drawn and what was kept: the step in colour at the edge, taken out over the drawn side."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

_ALIKE, _OTHER = 48.0, 96.0  # of 255: steps up to the first are errors of a colour, from the second on another object
_ALONG = 3.0  # pixels; what changes faster along an edge is texture
_REACH = 16.0  # pixels, over which the correction fades: a network errs at the edge itself, and less beyond it
_SWEEPS = 24


def match_edges(drawn: np.ndarray, kept: np.ndarray, known: np.ndarray) -> np.ndarray:
    """A drawn picture with its colours brought to what is kept around it, as in a seamless clone.

    drawn: `h w 3` float, 0 .. 255; kept: `h w 3`, the pixels to go on from; known: `h w` uint8, 255 where they stay,
    0 where `drawn` takes their place; between the two is no edge, for what is soft blends by itself.

    Along the edge, the drawn side is moved by the step in colour that is there; inwards the correction goes on as a
    membrane does that is held at the edge, and fades (Perez et al. 2003, "Poisson image editing", section 2; Farbman et
    al. 2009). Where the step is so large that the edge is one of objects, nothing is corrected.
    """
    old, new = (torch.from_numpy(np.asarray(a, np.float32)).permute(2, 0, 1) for a in (kept, drawn))  # 3 h w
    share = torch.from_numpy(np.ascontiguousarray(known))[None]  # 1 h w
    stays = (share == 255).float()
    beside = _neighbours(stays)  # how many neighbours are kept, 0 .. 4
    edge = ((beside > 0) & (share == 0)).float()
    if not edge.any():
        return drawn
    step = edge * (_neighbours(old * stays) / beside.clamp(min=1) - new)  # 3 h w
    trust = ((_OTHER - step.abs().amax(0, keepdim=True)) / (_OTHER - _ALIKE)).clamp(0, 1)
    steady = edge * _blur(step * trust) / _blur(edge).clamp(min=1e-6)
    fade = (2 * _blur(stays, _REACH / 2)).clamp(max=1)  # half of what is around an edge is kept
    return drawn + (fade * membrane(steady[None], edge[None])[0]).permute(1, 2, 0).numpy()


def membrane(values: Tensor, fixed: Tensor) -> Tensor:
    """The harmonic function that has given values at some pixels: each other is the mean of its four neighbours.

    values: `b c h w`; fixed: `b 1 h w`, 1 where a value is given, at one pixel at least. The borders are free (no slope
    across them). Solved from the coarsest grid to the finest, with Jacobi's sweeps on each.
    """
    height, width = values.shape[-2:]
    if min(height, width) > 2:
        half = ((height + 1) // 2, (width + 1) // 2)
        share = F.adaptive_avg_pool2d(fixed, half)
        coarse = F.adaptive_avg_pool2d(values * fixed, half) / share.clamp(min=1e-6)
        x = F.interpolate(membrane(coarse, (share > 0).to(fixed)), size=(height, width), mode="bilinear")
    else:
        x = (values * fixed).sum((-1, -2), keepdim=True) / fixed.sum((-1, -2), keepdim=True)
        x = x.expand_as(values)
    for _ in range(_SWEEPS):
        around = F.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = (around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]) / 4
        x = torch.where(fixed > 0, values, mean)
    return x


def _neighbours(values: Tensor) -> Tensor:
    """`c h w` -> the sum of the four neighbours of each pixel, nothing beyond the border."""
    around = F.pad(values, (1, 1, 1, 1))
    return around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]


def _blur(values: Tensor, deviation: float = _ALONG) -> Tensor:
    side = min(2 * round(3 * deviation) + 1, *(2 * length - 1 for length in values.shape[-2:]))
    return gaussian_blur(values, [side, side], [deviation, deviation])
