"""Training losses and the noise they need."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.denoiser import x0_from
from unclip.diffusion.schedule import Schedule


def contrastive_loss(image_embed: Tensor, text_embed: Tensor, logit_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric cross entropy over a batch's similarities (CLIP, figure 3); `b d`, `b d` -> loss, rank-1 accuracy."""
    with torch.autocast(image_embed.device.type, enabled=False):  # bfloat16 would round away most of what is learned
        image_unit, text_unit = (F.normalize(embed.float(), dim=-1) for embed in (image_embed, text_embed))
        logits = logit_scale.float().exp() * image_unit @ text_unit.T  # b_image b_text
    labels = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    return loss, (logits.argmax(dim=1) == labels).float().mean()


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
