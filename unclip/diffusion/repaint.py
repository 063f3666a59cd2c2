"""RePaint: denoise each stretch of the timesteps several times, so that generated pixels come to match known ones.

Lugmayr et al. 2022 (arXiv:2201.09865), section 4.2.
"""

from torch import Tensor

from unclip.diffusion.noise import Generators, randn
from unclip.diffusion.schedule import Schedule


def resampling_schedule(steps: int, passes: int) -> list[int]:
    """The order in which the timesteps 0 .. steps-1 (the noisiest first) are visited.

    After each stretch of a tenth of the timesteps, the sample is noised again and the stretch is repeated, `passes`
    times in all. No stretch includes the last timestep: there, x0 itself is the result.
    """
    stretch_length = max(1, round(steps / 10))
    order: list[int] = []
    for first in range(0, steps - 1, stretch_length):
        stretch = range(first, min(first + stretch_length, steps - 1))
        order += [*stretch] * passes
    return [*order, steps - 1]


def renoise(x: Tensor, t: int, t_noisier: int, schedule: Schedule, generators: Generators) -> Tensor:
    """x (`b ...`) at timestep t, noised to a noisier timestep in one jump: DDPM (Ho et al. 2020), equation 2."""
    ab = schedule.alphas_cumprod()
    kept = float(ab[t_noisier] / ab[t])
    return kept**0.5 * x + (1 - kept) ** 0.5 * randn(x.shape[1:], generators, x.device)
