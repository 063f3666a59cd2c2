"""Wrappers of x0: that hold a part of the picture fixed, correct it, or look at it."""

from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction


def keep_known(denoise: Denoise, image: Tensor, known: Tensor) -> Denoise:
    """Predict `image` where it is known, whatever the network says.

    image: `b ...`, clean, in the space of x. known: the same or broadcastable, 1 = keep, 0 = free.
    Samplers step towards x0, so the known region passes through its right noise levels and ends exactly on
    the image. A learned variance would spoil the levels on the way, so there it is the posterior's (-1).
    """

    def denoise_rest(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        x0 = known * image + (1 - known) * prediction.x0
        variance = prediction.variance
        if variance is not None:
            variance = (1 - known) * variance - known
        return Prediction(x0, variance)

    return denoise_rest
