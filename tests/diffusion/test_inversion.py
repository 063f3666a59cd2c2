"""Inversion against what is known in closed form, and against the sampler that it is the inverse of."""

import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.inversion import SKIP, invert
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.samplers import Sampling, sample
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.spacing import even_timesteps
from unclip.errors import RequestError

SCHEDULE = Schedule()
SHAPE = (3, 4, 4)


def linear(gain: float, shift: float) -> Denoise:
    """x0 is a linear function of x, which the signal's share at each timestep weighs."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        signal = SCHEDULE.alphas_cumprod()[t].sqrt().view(-1, 1, 1, 1)
        return Prediction(gain * signal * x + shift)

    return denoise


def again(denoise: Denoise, x: Tensor, steps: int) -> Tensor:
    return sample(denoise, x, SCHEDULE, Sampling("ddim", steps, skip=SKIP), ())


@pytest.mark.parametrize("steps", [2, 5, 30])
@pytest.mark.parametrize("gain", [0.9, 0.3])
def test_generation_and_inversion_are_inverses_on_a_linear_denoiser(gain: float, steps: int) -> None:
    denoise = linear(gain, 0.1)
    noise = randn(SHAPE, make_generators([1, 2]))
    x0 = again(denoise, noise, steps)
    found = invert(denoise, x0, SCHEDULE, steps, rounds=60)
    torch.testing.assert_close(found, noise, rtol=0, atol=2e-3)
    torch.testing.assert_close(again(denoise, found, steps), x0, rtol=0, atol=1e-4)


def test_the_noise_of_a_gaussian_is_its_quantile(ideal) -> None:
    """The flow of a Gaussian is known: a sample at k deviations comes from noise at k deviations."""
    exact = ideal.gaussian(0.3, 0.5)
    x0 = 0.3 + 0.5 * randn((2000,), make_generators([3]))
    found = invert(exact, x0, SCHEDULE, 200)
    ab = SCHEDULE.alphas_cumprod()[even_timesteps(SCHEDULE, 200)[SKIP]]
    expected = ab.sqrt() * 0.3 + (ab * 0.25 + 1 - ab).sqrt() * (x0 - 0.3) / 0.5
    assert (found - expected).abs().max() < 0.12
    assert abs(float(found.std()) - 1) < 0.03


def test_more_steps_and_another_round_come_closer(ideal) -> None:
    exact = ideal.gaussian(0.0, 0.5)
    x0 = 0.5 * randn((500,), make_generators([4]))

    def error(steps: int, rounds: int) -> float:
        return float((again(exact, invert(exact, x0, SCHEDULE, steps, rounds=rounds), steps) - x0).abs().max())

    for rounds in (0, 1):
        assert error(100, rounds) < error(25, rounds) < error(10, rounds)
    assert error(25, 1) < error(25, 0) / 3


def test_it_rises_from_the_cleanest_timestep_and_leaves_out_the_noisiest() -> None:
    times: list[int] = []

    def watched(x: Tensor, t: Tensor) -> Prediction:
        times.append(int(t[0]))
        return Prediction(x * 0)

    calls: list[tuple[int, int]] = []
    called: list[int] = []  # how often the network was by then
    x = torch.zeros(2, 3)

    def progress(done: int, total: int) -> None:
        calls.append((done, total))
        called.append(len(times))

    invert(watched, x, SCHEDULE, 4, progress, rounds=0)
    assert times == [250, 250, 500]  # it ends at 749, of 999, 749, 500 and 250
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert called[0] == 0
    times.clear()
    again(watched, x, 4)
    assert times == [749, 500, 250]


@pytest.mark.parametrize("steps", [1, 0, 1001])
def test_steps_out_of_range(steps: int) -> None:
    with pytest.raises(RequestError, match="choose 2 to 1000"):
        invert(linear(1, 0), torch.zeros(1, *SHAPE), SCHEDULE, steps)
