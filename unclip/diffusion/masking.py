"""Masked denoising: hold known pixels fixed by replacing x0 there."""

from dataclasses import dataclass

from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.schedule import Schedule, add_noise


def keep_known(denoise: Denoise, image: Tensor, known: Tensor) -> Denoise:
    """A denoiser that predicts `image` where it is known: known * image + (1 - known) * x0.

    image: clean, `b ...`, in the space of x. known: `b ...` or broadcastable to it; 1 = keep, 0 = generate.

    Samplers step towards x0, so the known region passes through the right noise level at every step and ends exactly
    on the image. Where the variance is learned, the known region gets the posterior's variance (-1): any other would
    give it a wrong noise level.
    """

    def denoise_unknown(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        x0 = known * image + (1 - known) * prediction.x0
        variance = prediction.variance
        if variance is not None:
            variance = (1 - known) * variance - known
        return Prediction(x0, variance)

    return denoise_unknown


@dataclass(frozen=True)
class FrozenNoise:
    """The noise that the known region has at every step. noise: the initial noise `b ...`.

    below: the timestep from which on it applies; the first step sees the initial noise itself.
    """

    noise: Tensor
    schedule: Schedule
    below: int


def freeze_known_noise(denoise: Denoise, image: Tensor, known: Tensor, frozen: FrozenNoise) -> Denoise:
    """A denoiser that sees, where it is known, `image` with the same noise at every noise level.

    Published latent inpainting networks are sampled so; use it inside `keep_known`, whose arguments these are. Without
    it, the noise of the known region is the sampler's own.
    """

    def denoise_from_known(x: Tensor, t: Tensor) -> Prediction:
        if int(t[0]) < frozen.below:
            x = known * add_noise(image, frozen.noise, t, frozen.schedule) + (1 - known) * x
        return denoise(x, t)

    return denoise_from_known
