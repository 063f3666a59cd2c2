"""From a picture back to the noise that it comes from: the deterministic DDIM of `samplers.py`, led upwards.

Together with the embedding that the decoder is given, that noise is the bipartite latent of a picture (Ramesh et al.
2022, arXiv:2204.06125, section 3).
"""

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.noise import Generators
from unclip.diffusion.samplers import Progress, Step, check_steps, ddim, even, travel
from unclip.diffusion.schedule import Schedule

SKIP = 1
"""Timesteps left out at the noisy end. There x0 is (x - s eps) / sqrt(alpha bar), and the divisor next to nothing: on
the cosine schedule 1/20,291 at t = 999 and 1/160 at t = 995. Dhariwal & Nichol 2021 (arXiv:2105.05233) inverted 249 of
250 steps."""
ROUNDS = 1


def invert(
    denoise: Denoise, x0: Tensor, schedule: Schedule, steps: int, progress: Progress | None = None, rounds: int = ROUNDS
) -> Tensor:
    """Clean x0 (`b ...`) -> the x from which `sample(..., "ddim", steps, skip=SKIP)` draws it, in float32.

    `denoise` is that of the sampling: neither guided, which amplifies the error of the inversion, nor clamped, which
    cannot be undone. The more steps and rounds (see `ahead`), the closer. Raises RequestError for fewer than 2 steps.
    """
    check_steps(steps, schedule, least=1 + SKIP)
    timesteps = even(schedule, steps)[SKIP:][::-1]
    if progress is not None:  # the network is called before the way begins
        progress(0, len(timesteps))
    x = first(denoise, x0.float(), timesteps[0], schedule, rounds)

    def tell(done: int, total: int) -> None:
        if progress is not None and done > 0:
            progress(done, total)

    def way() -> tuple[list[int], Step]:
        return timesteps, step

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, _: Generators) -> Tensor:
        return ddim(prediction, x, t, t_next, schedule)

    def arrived(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(x)

    return travel(ahead(denoise, timesteps, schedule, rounds), x, schedule, way, (), tell, last=arrived)


def first(denoise: Denoise, x0: Tensor, t: int, schedule: Schedule, rounds: int) -> Tensor:
    """The x (`b ...`) at the cleanest timestep t in which the denoiser sees x0: what it misses of x0 is added.

    It is the picture's noise at that level: DDIM's first step. Once is best for a network, of which more rounds would
    take for noise also what it will never draw.
    """
    signal = float(schedule.alphas_cumprod()[t]) ** 0.5
    x, times = signal * x0, torch.full((len(x0),), t, device=x0.device)
    for _ in range(max(1, rounds)):
        x = x + signal * (x0 - denoise(x, times).x0)
    return x


def ahead(denoise: Denoise, timesteps: list[int], schedule: Schedule, rounds: int) -> Denoise:
    """A denoiser that says, at each of rising timesteps, the x0 that `denoise` will say at the next.

    A step down from there uses that x0, so a step up that is to be its inverse must as well. It is not known before
    the step is taken: it is found as a fixed point, from the x0 at hand, in `rounds` rounds (0: plain DDIM inversion).
    Each takes the error to the next order of the step's length. (Pan et al. 2023, arXiv:2309.04907.)
    """
    following = dict(zip(timesteps[:-1], timesteps[1:], strict=True))

    def denoise_ahead(x: Tensor, t: Tensor) -> Prediction:
        now = int(t[0])
        prediction = denoise(x, t)
        for _ in range(rounds):
            there = ddim(prediction, x, now, following[now], schedule)
            prediction = denoise(there, torch.full_like(t, following[now]))
        return prediction

    return denoise_ahead
