"""Algebra of CLIP embeddings: interpolation, weighted means, text diffs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def slerp(a: Tensor, b: Tensor, fraction: Tensor | float) -> Tensor:
    """Spherical interpolation between `b d` and `b d`: the direction rotates from a to b, the length changes linearly.

    fraction: 0 gives a, 1 gives b; a number or `b`. Between opposite directions, which have no shortest arc, the path
    goes through one perpendicular direction. Shoemake 1985, "Animating rotation with quaternion curves".
    """
    fraction = torch.as_tensor(fraction, dtype=a.dtype, device=a.device).reshape(-1, 1)  # b 1
    long_a, long_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / long_a.clamp(min=1e-12), b / long_b.clamp(min=1e-12)
    across = unit_b - (unit_a * unit_b).sum(-1, keepdim=True) * unit_a  # the part of b that is perpendicular to a
    angle = torch.atan2(across.norm(dim=-1, keepdim=True), (unit_a * unit_b).sum(-1, keepdim=True))
    axis = F.one_hot(unit_a.abs().argmin(-1), a.shape[-1]).to(a)  # the axis farthest from the direction of a
    other = axis - (axis * unit_a).sum(-1, keepdim=True) * unit_a
    across = torch.where(across.norm(dim=-1, keepdim=True) > 1e-6, across, other)
    across = across / across.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    direction = torch.cos(fraction * angle) * unit_a + torch.sin(fraction * angle) * across
    return ((1 - fraction) * long_a + fraction * long_b) * direction


def mix(vectors: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted spherical mean `d` of vectors `n d`: the Fréchet mean of the directions, the mean of the lengths.

    weights: n numbers >= 0, not all 0. At the mean direction, the weighted rotations towards all vectors cancel (Buss &
    Fillmore 2001, "Spherical averages", algorithm A1). Two vectors are interpolated by `slerp`. If opposite directions
    have no mean, the heaviest one is taken.
    """
    fractions = torch.as_tensor(weights, dtype=vectors.dtype, device=vectors.device)
    fractions = fractions / fractions.sum()  # n
    if len(vectors) == 2:
        return slerp(vectors[:1], vectors[1:], float(fractions[1]))[0]
    if fractions.max() == 1:
        return vectors[fractions.argmax()]
    length = fractions @ vectors.norm(dim=-1)
    unit = F.normalize(vectors, dim=-1)
    mean = fractions @ unit
    mean = F.normalize(mean if mean.norm() > 1e-6 else unit[fractions.argmax()], dim=-1)
    for _ in range(50):
        cosine = (unit @ mean).clamp(-1, 1)[:, None]
        across = F.normalize(unit - cosine * mean, dim=-1)
        turn = fractions @ (torch.acos(cosine) * across)
        angle = turn.norm()
        if angle < 1e-6:
            break
        mean = F.normalize(torch.cos(angle) * mean + torch.sin(angle) * turn / angle, dim=-1)
    return length * mean


def text_diff(image: Tensor, text: Tensor, origin: Tensor, theta: Tensor | float) -> Tensor:
    """Image embeddings `b d` rotated by a fraction theta towards the difference of two texts, all `b d`.

    z_d = norm(z_t - z_t0), z = slerp(z_i, z_d, theta) (Ramesh et al. 2022, arXiv:2204.06125, section 3.3). The
    length of z_i is kept. Equal texts have no difference and leave the image as it is.
    """
    difference = F.normalize(text, dim=-1) - F.normalize(origin, dim=-1)
    length = image.norm(dim=-1, keepdim=True)
    same = difference.norm(dim=-1, keepdim=True) < 1e-6
    return slerp(image, torch.where(same, image, length * F.normalize(difference, dim=-1)), theta)
