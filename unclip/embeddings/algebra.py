"""Between and around CLIP embeddings: interpolations, mixtures, text diffs, principal components."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def slerp(a: Tensor, b: Tensor, share: Tensor | float) -> Tensor:
    """Spherical interpolation of `b d` and `b d`: the direction turns from a's to b's, the length goes with it.

    share: 0 gives a, 1 gives b; a number or `b`. Equal directions are mixed as they are. Opposite ones have no shortest
    way between them; theirs leads through one that is at right angles to both. (Shoemake 1985.)
    """
    share = torch.as_tensor(share, dtype=a.dtype, device=a.device).reshape(-1, 1)  # b 1
    long_a, long_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / long_a.clamp(min=1e-12), b / long_b.clamp(min=1e-12)
    across = unit_b - (unit_a * unit_b).sum(-1, keepdim=True) * unit_a  # of b, at right angles to a
    angle = torch.atan2(across.norm(dim=-1, keepdim=True), (unit_a * unit_b).sum(-1, keepdim=True))
    axis = F.one_hot(unit_a.abs().argmin(-1), a.shape[-1]).to(a)  # as far from a's direction as an axis can be
    other = axis - (axis * unit_a).sum(-1, keepdim=True) * unit_a
    across = torch.where(across.norm(dim=-1, keepdim=True) > 1e-6, across, other)
    across = across / across.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    direction = torch.cos(share * angle) * unit_a + torch.sin(share * angle) * across
    return ((1 - share) * long_a + share * long_b) * direction


def mix(vectors: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted spherical mean `d` of `n d`, in whatever order: of directions the Fréchet mean, of lengths the mean.

    The mean direction is where the turns towards all of them, weighted, cancel (Buss & Fillmore 2001, algorithm A1). Of
    two it is `slerp`, which also says what lies between opposite ones; of more, opposite ones that leave no mean give
    the heaviest.
    """
    shares = torch.as_tensor(weights, dtype=vectors.dtype, device=vectors.device)
    shares = shares / shares.sum()  # n
    if len(vectors) == 2:
        return slerp(vectors[:1], vectors[1:], float(shares[1]))[0]
    if shares.max() == 1:
        return vectors[shares.argmax()]
    length = shares @ vectors.norm(dim=-1)
    unit = F.normalize(vectors, dim=-1)
    mean = shares @ unit
    mean = F.normalize(mean if mean.norm() > 1e-6 else unit[shares.argmax()], dim=-1)
    for _ in range(50):
        cosine = (unit @ mean).clamp(-1, 1)[:, None]
        across = F.normalize(unit - cosine * mean, dim=-1)
        turn = shares @ (torch.acos(cosine) * across)
        angle = turn.norm()
        if angle < 1e-6:
            break
        mean = F.normalize(torch.cos(angle) * mean + torch.sin(angle) * turn / angle, dim=-1)
    return length * mean


def text_diff(image: Tensor, text: Tensor, origin: Tensor, theta: Tensor | float) -> Tensor:
    """Image embeddings `b d` turned by a share theta towards what sets a text apart from another, all `b d`.

    z_d = norm(z_t - z_t0), z = slerp(z_i, z_d, theta) (Ramesh et al. 2022, arXiv:2204.06125, section 3.3); the length
    of z_i stays. Texts that are the same have no difference, and leave the image as it is.
    """
    difference = F.normalize(text, dim=-1) - F.normalize(origin, dim=-1)
    length = image.norm(dim=-1, keepdim=True)
    same = difference.norm(dim=-1, keepdim=True) < 1e-6
    return slerp(image, torch.where(same, image, length * F.normalize(difference, dim=-1)), theta)
