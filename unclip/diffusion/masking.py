"""Masked denoising: hold known pixels fixed by replacing x0 there."""

from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction


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
