"""Wrappers that transform or observe the predicted x0."""

from collections.abc import Callable

from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction


def clamped(denoise: Denoise, limit: float | None) -> Denoise:
    """Keep x0 within [-limit, limit]; None leaves it alone."""
    if limit is None:
        return denoise

    def within(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        return Prediction(prediction.x0.clamp(-limit, limit), prediction.variance)

    return within


def levelled(denoise: Denoise, correct: Callable[[Tensor], Tensor]) -> Denoise:
    """A denoiser whose x0 is passed through `correct`, such as a factor."""

    def corrected(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        return Prediction(correct(prediction.x0), prediction.variance)

    return corrected


def watched(denoise: Denoise, see: Callable[[Tensor], None]) -> Denoise:
    """A denoiser that shows each x0 to `see`."""

    def seen(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        see(prediction.x0)
        return prediction

    return seen
