"""Classifier-free guidance, at all steps or at some."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.schedule import Schedule

NetworkInputs = dict[str, Tensor]
"""The inputs of a network besides x and t, by name. Every tensor has the batch as its first dimension."""

Half = Literal["uncond", "cond"]
"""One half of a guided batch: without and with the prompt."""

Bind = Callable[[NetworkInputs, tuple[Half, ...]], Denoise]
"""Makes a denoiser from network inputs, given the halves of the guided batch that these are."""


@dataclass
class GuidedSteps:
    """The steps of one call site at which guidance is computed, and the difference that the others reuse.

    A call site is a chunk of a batch or of windows, in one run; it is called once per step of the loop.

    interval: noise levels sigma = sqrt((1 - alpha bar) / alpha bar), (low, high]: guidance is 1 at all others.
        Kynkäänniemi et al. 2024 (arXiv:2404.07724). None: guidance at all noise levels.
    every: of this many consecutive steps within the interval, the first evaluates the network with and without the
        prompt. The others evaluate it with the prompt only, and reuse the difference.
    limit: of |x0| in that difference. A network that predicts the noise may predict a huge x0 at the first step.
    """

    schedule: Schedule
    interval: tuple[float, float] | None = None
    every: int = 1
    limit: float | None = None

    def __post_init__(self) -> None:
        self._difference: Tensor | None = None
        self._age = 0
        self._last = -1

    @property
    def are_all(self) -> bool:
        """Whether guidance is computed at every step."""
        return self.interval is None and self.every == 1

    def applies(self, t: int) -> bool:
        """Whether the noise level of timestep t is within the interval."""
        if self.interval is None:
            return True
        ab = float(self.schedule.alphas_cumprod()[t])
        low, high = self.interval
        return low < ((1 - ab) / ab) ** 0.5 <= high

    def reused(self, t: int) -> Tensor | None:
        """x0 with minus x0 without the prompt, `b ...`, of an earlier step; None if it must be computed at timestep t.

        It is reused in the form of a velocity, -difference / sqrt(1 - alpha bar), as the difference of x0 vanishes with
        the noise. RePaint jumps back to more noise; it is computed again there.
        """
        if self._difference is None or self._age >= self.every or t > self._last:
            return None
        noise, last = (float(1 - self.schedule.alphas_cumprod()[time]) ** 0.5 for time in (t, self._last))
        self._age, self._last, self._difference = self._age + 1, t, self._difference * (noise / last)
        return self._difference

    def keep(self, t: int, cond: Tensor, uncond: Tensor) -> None:
        """Keep x0 `b ...` with and without the prompt, for `reused`."""
        if self.limit is not None:
            cond, uncond = (x0.clamp(-self.limit, self.limit) for x0 in (cond, uncond))
        self._difference, self._age, self._last = cond - uncond, 1, t


def guided(
    bind: Bind, cond: NetworkInputs, uncond: NetworkInputs | None, scale: float, steps: GuidedSteps | None = None
) -> Denoise:
    """A guided denoiser: x0 = uncond + scale * (cond - uncond) (Ho & Salimans 2022, arXiv:2207.12598, equation 6).

    x0 is linear in eps and in v, so guiding x0 equals guiding the network's own output.

    bind: makes a denoiser from network inputs. It is called once for each half or both, which then are [uncond, cond]
        as one doubled batch.
    cond, uncond: inputs with and without the prompt. uncond may be None for scale 1.
    scale: 1 and 0 need one half of the doubled batch only, and cost half.
    steps: the steps at which guidance is computed; None for all.

    The variance comes from the conditional half.
    """
    if scale == 1:
        return bind(cond, ("cond",))
    assert uncond is not None, f"guidance {scale} needs `uncond`"
    assert cond.keys() == uncond.keys(), f"the inputs differ: {sorted(cond)} and {sorted(uncond)}"
    denoise_cond, denoise_uncond = cache(lambda: bind(cond, ("cond",))), cache(lambda: bind(uncond, ("uncond",)))
    denoise_both = cache(lambda: bind({k: torch.cat([uncond[k], cond[k]]) for k in cond}, ("uncond", "cond")))

    def denoise_at_every_step(x: Tensor, t: Tensor) -> Prediction:
        if scale == 0:
            return denoise_uncond()(x, t)
        both = denoise_both()(torch.cat([x, x]), torch.cat([t, t]))  # 2b ...
        x0_uncond, x0_cond = both.x0.chunk(2)
        variance = None if both.variance is None else both.variance.chunk(2)[1]
        if steps is not None and steps.every > 1:
            steps.keep(int(t[0]), x0_cond, x0_uncond)
        return Prediction(x0_uncond + scale * (x0_cond - x0_uncond), variance)

    if steps is None or steps.are_all:
        return denoise_at_every_step

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        now = int(t[0])
        if not steps.applies(now):
            return denoise_cond()(x, t)
        if (difference := steps.reused(now)) is None:
            return denoise_at_every_step(x, t)
        prediction = denoise_cond()(x, t)
        return Prediction(prediction.x0 + (scale - 1) * difference, prediction.variance)

    return denoise
