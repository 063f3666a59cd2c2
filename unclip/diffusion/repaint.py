"""RePaint: the resampling schedule and the forward jump it needs."""

from torch import Tensor

from unclip.diffusion.noise import Generators, randn
from unclip.diffusion.schedule import Schedule


def visits(steps: int, repeats: int) -> list[int]:
    """The order in which the timesteps 0 .. steps-1 (the noisiest first) are visited.

    RePaint (Lugmayr et al. 2022, arXiv:2201.09865, section 4.2): after every stretch of a tenth of the way the sample
    is noised again and the stretch gone once more, `repeats` times in all, so that the free part comes to agree with
    the known one. A stretch ends one timestep before the last at the latest: from the last, x0 itself is the result.
    """
    jump = max(1, round(steps / 10))
    route: list[int] = []
    for start in range(0, steps - 1, jump):
        stretch = range(start, min(start + jump, steps - 1))
        route += [*stretch] * repeats
    return [*route, steps - 1]


def renoise(x: Tensor, t: int, t_up: int, schedule: Schedule, generators: Generators) -> Tensor:
    """x (`b ...`) at timestep t, noised forward to a noisier one: DDPM (Ho et al. 2020), equation 2, in one jump."""
    ab = schedule.alphas_cumprod()
    kept = float(ab[t_up] / ab[t])
    return kept**0.5 * x + (1 - kept) ** 0.5 * randn(x.shape[1:], generators, x.device)
