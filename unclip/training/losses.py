"""Training losses, and the random noise that they need."""

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.denoiser import x0_from
from unclip.diffusion.schedule import Schedule, signal_and_noise
from unclip.system.processes import ALONE, Processes
from unclip.training.batch import Batch


def contrastive_loss(
    image_embed: Tensor, text_embed: Tensor, logit_scale: Tensor, processes: Processes = ALONE
) -> tuple[Tensor, Tensor]:
    """Symmetric cross entropy over the similarities of a batch, and the accuracy at rank 1 (CLIP, figure 3).

    image_embed, text_embed: `b d`. logit_scale: the log of the inverse temperature. With several processes, the rows of
    this one are compared with those of all, and the mean of all results is the loss of the whole batch (open_clip's
    "local loss", gathered with gradients).
    """
    # In bfloat16 rounding would remove most of the differences that are learned.
    with torch.autocast(image_embed.device.type, enabled=False):
        image_unit, text_unit = (F.normalize(embed.float(), dim=-1) for embed in (image_embed, text_embed))
        scale = logit_scale.float().exp()
        if processes.count == 1:
            logits = scale * image_unit @ text_unit.T  # b_image b_text
            text_logits = logits.T
        else:
            from open_clip.loss import gather_features

            images, texts = gather_features(
                image_unit, text_unit, True, True, rank=processes.rank, world_size=processes.count
            )  # (processes b) d
            logits, text_logits = scale * image_unit @ texts.T, scale * text_unit @ images.T  # b (processes b)
    labels = processes.rank * len(logits) + torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(text_logits, labels)) / 2
    return loss, (logits.argmax(dim=1) == labels).float().mean()


def sample_noise(
    x0: Tensor, schedule: Schedule, batch: Batch, shift: float | None = None, spread: float = 1.4
) -> tuple[Tensor, Tensor]:
    """Random timesteps and noise for x0 `(b each) ...`, which has one or more rows for each row of the batch.

    Without a shift, timesteps are uniform. With one, half the log of noise over signal variance is normal with mean
    `shift` and standard deviation `spread` (Esser et al. 2024, arXiv:2403.03206, section 3.1); on the cosine schedule
    that is log tan(pi t / 2). Larger images, and images that depend more on the text, need more training at high noise,
    where the layout is decided.
    """
    each = len(x0) // len(batch)
    if shift is None:
        fraction = batch.rand(each=each)
    else:
        fraction = 2 / torch.pi * torch.atan(torch.exp(shift + spread * batch.randn(each=each)))
    t = (fraction * schedule.num_train_timesteps).long().clamp(max=schedule.num_train_timesteps - 1)
    return t.to(x0.device), batch.randn_like(x0)


def network_target(x0: Tensor, noise: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """What a network should return for x_t at timesteps `b`: the noise, x0, or the velocity (`b ...`)."""
    if schedule.prediction_type == "epsilon":
        return noise
    if schedule.prediction_type == "sample":
        return x0
    a, s = signal_and_noise(x0, t, schedule)
    return a * noise - s * x0


TYPICAL_CONTRAST = 0.33
"""Root mean square difference of a training scene's pixels from their mean; pixels are -1 .. 1."""


def contrast_weights(images: Tensor, power: float) -> Tensor:
    """Weights `b` of the losses of images `b 3 h w` in [-1, 1]: their contrast to the power of -`power`.

    The squared error of an object in colours like its background's is small however badly it is drawn. Weights are 1
    at a typical contrast, and do not depend on the rest of the batch.
    """
    contrast = images.float().var(dim=(2, 3)).mean(1).sqrt()
    return ((contrast + 0.05) / (TYPICAL_CONTRAST + 0.05)) ** -power


def velocity_loss(
    output: Tensor, x_t: Tensor, x0: Tensor, t: Tensor, schedule: Schedule, weights: Tensor | None = None
) -> Tensor:
    """Mean squared error of the velocity that a network's output implies, whether it predicts v or x0.

    weights: of the examples, `b`; None weighs all alike.

    With v = (sqrt(ab) x_t - x0) / sqrt(1 - ab), this is the error of x0 divided by the noise variance. The variance is
    at least 0.04 here, because otherwise the last, nearly clean timesteps would outweigh all others for a network that
    predicts x0. For small networks x0 is easier than v: they need not carry the noise of every patch through to the
    output (Li & He 2025, arXiv:2511.13720).
    """
    return velocity_error(x0_from(output.float(), x_t, t, schedule), x0, t, schedule, weights)


def velocity_error(x0_hat: Tensor, x0: Tensor, t: Tensor, schedule: Schedule, weights: Tensor | None = None) -> Tensor:
    """The same for a predicted x0, `b ...`."""
    variance = (1 - schedule.alphas_cumprod().to(x0.device))[t].clamp(min=0.04)
    error = (x0_hat - x0).square().flatten(1).mean(1) / variance  # b
    return (error if weights is None else error * weights).mean()


def noise_error(x0_hat: Tensor, x0: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
    """Mean squared error of the noise that a predicted x0 `b ...` implies: that of x0 times signal over noise."""
    signal = schedule.alphas_cumprod().to(x0.device)[t]  # b
    error = (x0_hat - x0).square().flatten(1).mean(1)  # b
    return (error * signal / (1 - signal)).mean()
