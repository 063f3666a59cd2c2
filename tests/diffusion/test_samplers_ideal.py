"""Every sampler against the truth: denoisers in closed form (conftest.py)."""

import pytest
import torch

from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.sampler_names import FOR_ANY_MODEL, SAMPLER_NAMES
from unclip.diffusion.samplers import Sampling, sample
from unclip.diffusion.schedule import Schedule

STOCHASTIC = ("unclip", "ddpm")
DETERMINISTIC = tuple(name for name in FOR_ANY_MODEL if name not in STOCHASTIC)
DATA = torch.rand(6, 5, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_samples_are_points_of_the_data_set(ideal, sampler: str) -> None:
    g = make_generators(range(200))
    out = sample(ideal.finite(DATA), randn((5,), g), Schedule(), Sampling(sampler, 60), g)
    distance, which = (out[:, None] - DATA).norm(dim=-1).min(dim=1)
    assert distance.quantile(0.99) < 0.02
    # and every point gets its share: 33 of 200 each, standard deviation 5
    assert torch.bincount(which, minlength=6).min() > 15


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_one_step_gives_the_mean_of_the_data(ideal, sampler: str) -> None:
    g = make_generators(range(4))
    out = sample(ideal.finite(DATA), randn((5,), g), Schedule(), Sampling(sampler, 1), g)
    torch.testing.assert_close(out, DATA.mean(0).expand_as(out), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_noisy_samplers_give_the_gaussians_mean_and_spread(ideal, sampler: str) -> None:
    g = make_generators(range(64))
    out = sample(ideal.gaussian(0.3, 0.5), randn((64,), g), Schedule(), Sampling(sampler, 200), g)
    assert abs(out.mean() - 0.3) < 0.03  # standard error 0.008
    assert abs(out.std() - 0.5) < 0.025  # standard error 0.006


@pytest.mark.parametrize(
    ("sampler", "steps", "error"),
    # a solver of order 1 at 100 steps; order 2 at far fewer
    [("ddim", 100, 0.01), ("dpmpp-2m", 25, 0.002), ("unipc", 25, 0.002)],
)
def test_solvers_end_where_the_ode_does(ideal, sampler: str, steps: int, error: float) -> None:
    g = make_generators(range(64))
    x = randn((16,), g)
    out = sample(ideal.gaussian(0.3, 0.5), x, Schedule(), Sampling(sampler, steps), g)
    exact = ideal.flow(x, 0.3, 0.5)
    assert (out - exact).square().mean().sqrt() < error


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_sampler_of_consistency_models_gives_the_gaussian_in_any_number_of_steps(ideal, steps: int) -> None:
    g = make_generators(range(64))
    x = randn((64,), g)
    out = sample(ideal.consistent(0.3, 0.5), x, Schedule(), Sampling("consistency", steps), g)
    assert abs(out.mean() - 0.3) < 0.03  # standard error 0.008
    assert abs(out.std() - 0.5) < 0.025  # standard error 0.006
    if steps == 1:
        torch.testing.assert_close(out, ideal.flow(x, 0.3, 0.5).float(), rtol=0, atol=1e-5)
    # The mean of all ends is not enough: in few steps it gives hardly any spread.
    assert sample(ideal.gaussian(0.3, 0.5), x, Schedule(), Sampling("consistency", steps), g).std() < 0.45


@pytest.mark.parametrize("segments", [1, 2, 4, 8])
def test_ddim_crosses_each_segment_of_a_multistep_consistency_model_in_one_step(ideal, segments: int) -> None:
    x = randn((16,), make_generators(range(32)))
    ends = [round(i * 999 / segments) for i in range(segments)]
    out = sample(ideal.consistent(0.3, 0.5, ends), x, Schedule(), Sampling("ddim", segments), [])
    torch.testing.assert_close(out, ideal.flow(x, 0.3, 0.5).float(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_solvers_converge(ideal, sampler: str) -> None:
    x = randn((16,), make_generators(range(32)))
    exact = ideal.flow(x, 0.3, 0.5)
    errors = []
    for steps in (4, 10, 25):
        out = sample(ideal.gaussian(0.3, 0.5), x, Schedule(), Sampling(sampler, steps), [])
        errors.append(float((out - exact).square().mean().sqrt()))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_item_is_the_same_alone_and_at_every_place(ideal, sampler: str) -> None:
    def run(seeds: list[int]) -> torch.Tensor:
        g = make_generators(seeds)
        return sample(ideal.finite(DATA), randn((5,), g), Schedule(), Sampling(sampler, 10), g)

    alone = {seed: run([seed])[0] for seed in range(4)}
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 0]):
        for seed, item in zip(order, run(order), strict=True):
            torch.testing.assert_close(item, alone[seed], rtol=0, atol=1e-6)
