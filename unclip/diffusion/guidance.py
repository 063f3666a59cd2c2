"""Wrappers that steer the prediction: classifier-free guidance, and the limit of x0."""

from collections.abc import Callable

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction

Conditioning = dict[str, Tensor]
"""What a network takes beside x and t, by name; every tensor has leading `b`."""


def guided(
    bind: Callable[[Conditioning], Denoise], cond: Conditioning, uncond: Conditioning | None, scale: float
) -> Denoise:
    """Classifier-free guidance (Ho & Salimans 2022, equation 6): x0 = uncond + scale * (cond - uncond).

    x0 is linear in eps and in v, so this equals guiding the network's own output. `bind` makes a Denoise of
    conditioning; it is called once, with [uncond, cond] as one doubled batch. The variance is that of the
    conditional half. Scales 1 and 0 need one half only, and cost half; uncond may be None for scale 1.
    """
    if scale == 1:
        return bind(cond)
    assert uncond is not None, f"guidance {scale} needs `uncond`"
    if scale == 0:
        return bind(uncond)
    assert cond.keys() == uncond.keys(), f"conditioning differs: {sorted(cond)} and {sorted(uncond)}"
    pair = bind({key: torch.cat([uncond[key], cond[key]]) for key in cond})

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        both = pair(torch.cat([x, x]), torch.cat([t, t]))  # 2b ...
        x0_uncond, x0_cond = both.x0.chunk(2)
        variance = None if both.variance is None else both.variance.chunk(2)[1]
        return Prediction(x0_uncond + scale * (x0_cond - x0_uncond), variance)

    return denoise
