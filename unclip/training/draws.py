"""What training draws in a step besides the pictures, and the contact sheet that shows how far it has come."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from unclip.diffusion.denoiser import Schedule, x0_from


def draw_noise(
    x0: Tensor, schedule: Schedule, generator: torch.Generator, shift: float | None = None, spread: float = 1.4
) -> tuple[Tensor, Tensor]:
    """Timesteps `b` of a schedule and noise like x0, both from `generator`. Timesteps are uniform without a shift.

    With one, half the log of noise over signal variance is normal with mean `shift` and deviation `spread`, as Esser et
    al. 2024 (arXiv:2403.03206, section 3.1) draw it; on the cosine schedule that is log tan(pi t / 2). The larger the
    picture and the more the text decides, the more there is to learn at high noise, where a layout is chosen.
    """
    if shift is None:
        share = torch.rand(len(x0), generator=generator)
    else:
        share = 2 / torch.pi * torch.atan(torch.exp(shift + spread * torch.randn(len(x0), generator=generator)))
    t = (share * schedule.num_train_timesteps).long().clamp(max=schedule.num_train_timesteps - 1)
    return t.to(x0.device), torch.randn(x0.shape, generator=generator).to(x0)


def velocity_error(output: Tensor, x_t: Tensor, x0: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Mean squared error of the velocity that a network's output implies, be that output v or x0.

    With v = (sqrt(ab) x_t - x0) / sqrt(1 - ab), that is the error of x0 over the noise variance; the variance is taken
    as at least 0.04, or x0 predictions at the last, nearly clean timesteps would count for more than all else. Small
    networks predict x0 more easily than v: they need not carry the noise of every patch through to their output
    (Li & He 2025, arXiv:2511.13720).
    """
    variance = (1 - schedule.alphas_cumprod().to(x0.device))[t].clamp(min=0.04)
    error = (x0_from(output.float(), x_t, t, schedule) - x0).square().flatten(1).mean(1)  # b
    return (error / variance).mean()


def with_known(
    images: Tensor, share: float, moved: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:  # b 3 s s, b 1 s s
    """Pictures `b 3 s s` to draw, and masks of what a decoder is told of them, 1 = known: of most, nothing.

    In `share` of them something is known: of `moved` of those, as `random_windows` has it, which changes the picture
    too, and else as `random_known` has it.
    """
    known = random_known(len(images), images.shape[-1], share, generator).to(images)
    if not moved:
        return images, known
    windows, seen = random_windows(images, generator)
    chosen = (torch.rand(len(images), generator=generator) < moved).to(images.device) & known.flatten(1).any(1)
    chosen = chosen[:, None, None, None]
    return torch.where(chosen, windows, images), torch.where(chosen, seen, known)


def random_known(count: int, size: int, share: float, generator: torch.Generator) -> Tensor:
    """Masks `b 1 h w`, 1 = known: nothing known, or in `share` of the samples all but, or only, a random box.

    A third of each box's sides are moved out to the picture's: an outpainting's windows are known up to their border.
    """
    given, inside = torch.rand(2, count, generator=generator)
    corners = torch.rand(2, 2, count, generator=generator).sort(dim=1).values * size  # axis, low and high, b
    moved = torch.rand(2, 2, count, generator=generator) < 1 / 3
    corners = torch.where(moved, torch.tensor([0.0, size])[:, None], corners)
    grid = torch.arange(size) + 0.5
    across = [(grid >= low[:, None]) & (grid < high[:, None]) for low, high in corners]  # b size, each
    box = across[0][:, :, None] & across[1][:, None, :]  # b h w
    known = box ^ (inside < 0.7)[:, None, None]
    return (known & (given < share)[:, None, None])[:, None].float()


def random_windows(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures `b 3 s s` as windows at the edge of an outpainting see them, and masks `b 1 s s`, 1 = known.

    A window is known on one side or on two, for a quarter to three quarters of its length, and the picture has moved
    out of it on that side, wholly at most. Behind it its border goes on: for pictures whose border is flat.
    """
    count, size = len(images), images.shape[-1]
    shift, length = torch.rand(2, 2, count, generator=generator)  # axis b, each
    backwards, still = torch.rand(2, 2, count, generator=generator) < 0.5
    still[1] &= ~still[0]  # it moves along one axis at least
    position = torch.arange(size)
    shift = (shift * size).round().long()
    shift = torch.where(backwards, -shift, shift).masked_fill(still, 0)[..., None]
    y, x = (position + shift).clamp(0, size - 1).to(images.device)  # b s, each
    item = torch.arange(count, device=images.device)[:, None, None]
    windows = images[item, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)  # b 3 s s
    length = ((0.25 + 0.5 * length) * size).round()[..., None]  # of what is known
    free = torch.where(backwards[..., None], position < size - length, position >= length) | still[..., None]
    return windows, 1 - (free[0][:, None, :, None] & free[1][:, None, None, :]).to(images)  # free: axis b s


def to_picture(images: Tensor, columns: int) -> Image.Image:
    """`b 3 h w` in [-1, 1] -> one contact sheet."""
    sheet = make_grid(images.cpu().float().clamp(-1, 1), nrow=columns, padding=2)
    return Image.fromarray(((sheet + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
