"""Between CLIP embeddings."""

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
