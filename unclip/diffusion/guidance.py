"""Classifier-free guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction

NetworkInputs = dict[str, Tensor]
"""The inputs of a network besides x and t, by name. Every tensor has the batch as its first dimension."""


def guided(
    bind: Callable[[NetworkInputs], Denoise], cond: NetworkInputs, uncond: NetworkInputs | None, scale: float
) -> Denoise:
    """A guided denoiser: x0 = uncond + scale * (cond - uncond) (Ho & Salimans 2022, arXiv:2207.12598, equation 6).

    x0 is linear in eps and in v, so guiding x0 equals guiding the network's own output.

    bind: makes a denoiser from network inputs. It is called once, with [uncond, cond] as one doubled batch.
    cond, uncond: inputs with and without the prompt. uncond may be None for scale 1.
    scale: 1 and 0 need one half of the doubled batch only, and cost half.

    The variance comes from the conditional half.
    """
    if scale == 1:
        return bind(cond)
    assert uncond is not None, f"guidance {scale} needs `uncond`"
    if scale == 0:
        return bind(uncond)
    assert cond.keys() == uncond.keys(), f"the inputs differ: {sorted(cond)} and {sorted(uncond)}"
    denoise_both = bind({key: torch.cat([uncond[key], cond[key]]) for key in cond})

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        both = denoise_both(torch.cat([x, x]), torch.cat([t, t]))  # 2b ...
        x0_uncond, x0_cond = both.x0.chunk(2)
        variance = None if both.variance is None else both.variance.chunk(2)[1]
        return Prediction(x0_uncond + scale * (x0_cond - x0_uncond), variance)

    return denoise
