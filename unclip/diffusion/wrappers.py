"""Wrappers that transform or observe the predicted x0."""

from collections.abc import Callable

from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction


def map_x0(denoise: Denoise, change: Callable[[Tensor], Tensor]) -> Denoise:
    """A denoiser whose x0 passes through `change`. The variance stays as predicted."""

    def denoise_and_change(x: Tensor, t: Tensor) -> Prediction:
        prediction = denoise(x, t)
        return Prediction(change(prediction.x0), prediction.variance)

    return denoise_and_change


def clamp_x0(denoise: Denoise, limit: float | None) -> Denoise:
    """A denoiser whose x0 lies within [-limit, limit]; None changes nothing."""
    return denoise if limit is None else map_x0(denoise, lambda x0: x0.clamp(-limit, limit))


def observe_x0(denoise: Denoise, observe: Callable[[Tensor], None]) -> Denoise:
    """A denoiser that passes each predicted x0 to `observe`."""

    def unchanged(x0: Tensor) -> Tensor:
        observe(x0)
        return x0

    return map_x0(denoise, unchanged)
