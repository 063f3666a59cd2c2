"""Wrappers that hold a part of the picture fixed."""

from collections.abc import Callable

from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

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


def levelled(denoise: Denoise, correct: Callable[[Tensor], Tensor]) -> Denoise:
    """A denoiser whose x0 is passed through `correct`, such as `continue_error` with what is known."""

    def corrected(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        return Prediction(correct(prediction.x0), prediction.variance)

    return corrected


def continue_error(picture: Tensor, image: Tensor, known: Tensor, reach: float) -> Tensor:
    """Add to a drawn picture the error that it makes where the truth is known, continued smoothly into the free part.

    picture, image: `b 3 h w`; known: `b 1 h w`, 1 = known. An edge between the two then shows no step, for an error is
    much the same on both sides of it. The correction fades out over `reach` pixels. Meant for the last step, where an
    exact denoiser has no error to continue.
    """
    size = 2 * round(1.5 * reach) + 1

    def blur(values: Tensor) -> Tensor:
        side = min(size, 2 * min(values.shape[-2:]) - 1)  # what reflection at the border can serve
        return gaussian_blur(values, [side, side], [reach / 2, reach / 2])

    share = blur(known)
    error = blur(known * (image - picture)) / share.clamp(min=1e-3)
    return picture + error * (2 * share).clamp(max=1)  # half of what is around an edge is known
