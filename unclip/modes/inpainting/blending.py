"""Blend generated pixels into known ones: the colour step at their edge is faded out over the generated side."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_SAME_OBJECT, _OTHER_OBJECT = 48.0, 96.0
"""Colour steps (of 255) up to the first are errors to correct; from the second, the edge is one between objects."""
_ALONG = 3.0  # pixels; faster changes of the step along an edge are texture
_REACH = 16.0  # pixels over which the correction fades: a network errs most at the edge itself
_SWEEPS = 24


def match_edges(generated: np.ndarray, image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The generated pixels with their colours matched to the known pixels around them, as in seamless cloning.

    generated: `h w 3` float, 0 .. 255. image: `h w 3`, has the known pixels. known: `h w` uint8, 255 = keep, 0 =
    generated; soft values between have no edge, because they blend already.

    Along the edge, the generated side moves by the colour step. Inwards, the correction is the membrane that is fixed
    at the edge, and it fades (Perez et al. 2003, "Poisson image editing", section 2; Farbman et al. 2009). A large step
    separates two objects, and is not corrected.
    """
    old, new = (torch.from_numpy(np.asarray(a, np.float32)).permute(2, 0, 1) for a in (image, generated))  # 3 h w
    keep = torch.from_numpy(np.ascontiguousarray(known))[None]  # 1 h w
    kept = (keep == 255).float()
    beside = _sum_neighbours(kept)  # number of kept neighbours, 0 .. 4
    edge = ((beside > 0) & (keep == 0)).float()
    if not edge.any():
        return generated
    step = edge * (_sum_neighbours(old * kept) / beside.clamp(min=1) - new)  # 3 h w
    trust = ((_OTHER_OBJECT - step.abs().amax(0, keepdim=True)) / (_OTHER_OBJECT - _SAME_OBJECT)).clamp(0, 1)
    steady = edge * _blur(step * trust) / _blur(edge).clamp(min=1e-6)
    fade = (2 * _blur(kept, _REACH / 2)).clamp(max=1)  # at an edge, half of the surroundings is kept
    return generated + (fade * membrane(steady[None], edge[None])[0]).permute(1, 2, 0).numpy()


def membrane(values: Tensor, fixed: Tensor) -> Tensor:
    """The harmonic function with fixed values at some pixels: every other pixel is the mean of its four neighbours.

    values: `b c h w`. fixed: `b 1 h w`, 1 where the value is fixed, at one pixel at least. The borders are free (zero
    slope). Solved from the coarsest grid to the finest, with Jacobi sweeps on each.
    """
    height, width = values.shape[-2:]
    if min(height, width) > 2:
        half = ((height + 1) // 2, (width + 1) // 2)
        keep = F.adaptive_avg_pool2d(fixed, half)
        coarse = F.adaptive_avg_pool2d(values * fixed, half) / keep.clamp(min=1e-6)
        x = F.interpolate(membrane(coarse, (keep > 0).to(fixed)), size=(height, width), mode="bilinear")
    else:
        x = (values * fixed).sum((-1, -2), keepdim=True) / fixed.sum((-1, -2), keepdim=True)
        x = x.expand_as(values)
    for _ in range(_SWEEPS):
        around = F.pad(x, (1, 1, 1, 1), mode="replicate")
        mean = (around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]) / 4
        x = torch.where(fixed > 0, values, mean)
    return x


def _sum_neighbours(values: Tensor) -> Tensor:
    """`c h w` -> the sum of the four neighbours of each pixel; 0 beyond the border."""
    around = F.pad(values, (1, 1, 1, 1))
    return around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]


def _blur(values: Tensor, deviation: float = _ALONG) -> Tensor:
    """`c h w`, blurred by a Gaussian of that standard deviation in pixels."""
    for axis in (-1, -2):
        # Reflection at the borders limits a kernel to almost twice a side, each for itself: an image may be thin.
        radius = min(round(3 * deviation), values.shape[axis] - 1)
        weights = (-((torch.arange(-radius, radius + 1) / deviation) ** 2) / 2).exp()
        padded = F.pad(values.movedim(axis, -1), (radius, radius), mode="reflect")
        blurred = F.conv1d(padded.flatten(0, 1)[:, None], (weights / weights.sum())[None, None])  # (c h) 1 w
        values = blurred[:, 0].unflatten(0, padded.shape[:2]).movedim(-1, axis)
    return values
