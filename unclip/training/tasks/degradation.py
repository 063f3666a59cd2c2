"""Degrade small images as the stages before an upsampler do, whose images are not perfect."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.training.batch import Batch


def downsample(images: Tensor, side: int) -> Tensor:
    """Images `b 3 H W` -> the true small images `b 3 side side`."""
    return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def degrade(small: Tensor, batch: Batch, blur: float, noise: float) -> Tensor:
    """Blur small images `b 3 h w` and add noise, each with a random strength per image.

    blur, noise: the largest standard deviations, in pixels and on pixels in [-1, 1].
    """
    blurs, noises = batch.rand_columns(2)[..., None, None, None].to(small.device)
    sigma = (blurs * blur).clamp(min=1e-3)
    offsets = torch.arange(-2, 3, device=small.device)
    row = torch.exp(-(offsets**2) / (2 * sigma.flatten()[:, None] ** 2))  # b 5
    row = row / row.sum(1, keepdim=True)
    kernel = (row[:, :, None] * row[:, None, :]).repeat_interleave(3, 0)[:, None]  # b*3 1 5 5
    padded = F.pad(small, (2, 2, 2, 2), mode="replicate").flatten(0, 1)[None]  # 1 b*3 h w
    blurred = F.conv2d(padded, kernel, groups=len(kernel))[0].unflatten(0, small.shape[:2])
    grain = batch.randn(*small.shape[1:]).to(small.device)
    return blurred + noises * noise * grain


def displace_patches(images: Tensor, batch: Batch, patch: int, shift: float, tint: float) -> Tensor:
    """Images `b 3 s s` whose square patches are moved and tinted, each for itself, with a random strength per image.

    A decoder on patches places each one for itself, so that edges become ragged where two patches meet. patch: side in
    pixels; the grid of the patches begins anywhere. shift, tint: the largest standard deviations of a patch's offset,
    in pixels, and of its change of colour, in [-1, 1].
    """
    side = images.shape[-1]
    cells = side // patch + 2
    shifts, tints = batch.rand_columns(2)[..., None, None, None]  # b 1 1 1
    change = batch.randn(5, cells, cells) * torch.cat(
        [(shifts * shift).expand(-1, 2, 1, 1), (tints * tint).expand(-1, 3, 1, 1)], 1
    )
    top, left = batch.once(lambda generator: torch.randint(0, patch, (2,), generator=generator)).tolist()
    spread = change.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    spread = spread[..., top : top + side, left : left + side].to(images)  # b 5 s s
    position = (torch.arange(side, device=images.device) * 2 + 1) / side - 1  # of pixels' centres
    grid = torch.stack(torch.meshgrid(position, position, indexing="xy"), -1)  # s s 2
    grid = grid + spread[:, :2].movedim(1, -1) * (2 / side)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False, mode="bicubic")
    return (moved + spread[:, 2:]).clamp(-1, 1)
