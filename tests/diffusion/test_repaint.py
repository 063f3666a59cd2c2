import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Prediction, denoiser
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.repaint import renoise, resampling_schedule
from unclip.diffusion.sampler_names import FOR_ANY_MODEL
from unclip.diffusion.samplers import Sampling, sample
from unclip.diffusion.schedule import Schedule

SHAPE = (3, 4, 4)


SEEDS = [11, 12]


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth function of x and t that is no good at denoising: any will do."""
    return 0.9 * x + 0.4 * torch.sin(2 * x.roll(1, dims=1) + t.view(-1, *[1] * (x.ndim - 1)) / 300)


def test_every_stretch_is_visited_once_per_pass() -> None:
    assert resampling_schedule(1, 5) == [0]
    assert resampling_schedule(4, 1) == [0, 1, 2, 3]
    assert resampling_schedule(4, 3) == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert resampling_schedule(20, 2) == [i for start in range(0, 18, 2) for i in [start, start + 1] * 2] + [18, 18, 19]
    assert resampling_schedule(250, 10)[:251] == [*range(25)] * 10 + [25]


@pytest.mark.parametrize("sampler", FOR_ANY_MODEL)
def test_resampling_keeps_the_spread_of_a_gaussian_at_every_step(ideal, sampler: str) -> None:
    """Going up by noising and down by an exact denoiser, the sample keeps the spread of each timestep."""
    seen: list[tuple[int, float]] = []
    exact = ideal.gaussian(0.0, 0.5)

    def watched(x: Tensor, t: Tensor) -> Prediction:
        seen.append((int(t[0]), float(x.std())))
        return exact(x, t)

    g, schedule = make_generators(range(4)), Schedule()
    sample(watched, randn((5000,), g), schedule, Sampling(sampler, 100, 3), g)
    assert len(seen) == len(resampling_schedule(100, 3))
    for t, spread in seen:
        ab = float(schedule.alphas_cumprod()[t])
        assert abs(spread / (ab * 0.25 + 1 - ab) ** 0.5 - 1) < 0.06, t


def test_one_pass_equals_no_resampling() -> None:
    def run(**options) -> Tensor:
        g = make_generators(SEEDS)
        return sample(denoiser(network, Schedule()), randn(SHAPE, g), Schedule(), Sampling("unipc", 9, **options), g)

    assert torch.equal(run(), run(resample=1))
    assert not torch.allclose(run(), run(resample=2))


def test_renoising_reaches_the_noise_level_of_the_noisier_timestep() -> None:
    schedule, g = Schedule(), make_generators([3])
    ab = schedule.alphas_cumprod()
    x0, noise = torch.tensor(0.7), randn((20_000,), g)
    x = renoise(ab[200].sqrt() * x0 + (1 - ab[200]).sqrt() * noise, 200, 600, schedule, g)
    assert float(x.mean()) == pytest.approx(float(ab[600].sqrt() * x0), abs=0.03)
    assert float(x.std()) == pytest.approx(float((1 - ab[600]).sqrt()), abs=0.03)
