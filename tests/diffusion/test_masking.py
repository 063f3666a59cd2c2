import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Prediction
from unclip.diffusion.masking import FrozenNoise, freeze_known_noise, keep_known
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.sampler_names import FOR_ANY_MODEL, SAMPLER_NAMES
from unclip.diffusion.samplers import Sampling, first_timestep, sample
from unclip.diffusion.schedule import Schedule, add_noise

N = 6
SHAPE = (3, 16, 16)
IMAGE = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
KNOWN = torch.zeros(N, 1, 16, 16)
KNOWN[..., 4:] = 1
LEARNED = Schedule(variance_type="learned_range")


def changing_denoiser(variance: bool):
    """A denoiser whose x0 differs at every step, with the largest variance if any."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(torch.sin(37 * x + t.view(-1, 1, 1, 1)), torch.ones_like(x) if variance else None)

    return denoise


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("schedule", [Schedule(), LEARNED], ids=["fixed", "learned"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_known_pixels_are_preserved_exactly(sampler: str, schedule: Schedule, steps: int) -> None:
    g = make_generators(range(N))
    denoise = keep_known(changing_denoiser(schedule is LEARNED), IMAGE, KNOWN)
    out = sample(denoise, randn(SHAPE, g), schedule, Sampling(sampler, steps), g)
    known = KNOWN.bool().expand_as(out)
    assert torch.equal(out[known], IMAGE[known])
    assert not torch.isclose(out[~known], IMAGE[~known]).all()


@pytest.mark.parametrize("schedule", [Schedule(), LEARNED], ids=["fixed", "learned"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_the_known_region_has_the_noise_level_of_each_timestep(sampler: str, schedule: Schedule) -> None:
    seen: dict[int, Tensor] = {}

    def watched(x: Tensor, t: Tensor) -> Prediction:
        seen[int(t[0])] = x
        return changing_denoiser(schedule is LEARNED)(x, t)

    g = make_generators(range(N))
    sample(keep_known(watched, IMAGE, KNOWN), randn(SHAPE, g), schedule, Sampling(sampler, 12), g)
    known = KNOWN.bool().expand_as(IMAGE)
    for t, x in seen.items():
        ab = schedule.alphas_cumprod()[t]
        noise = (x - ab.sqrt() * IMAGE)[known] / (1 - ab).sqrt()  # 3456 numbers, to be N(0, 1)
        assert abs(noise.mean()) < 0.08, t
        assert abs(noise.std() - 1) < 0.05, t


def test_a_soft_mask_blends() -> None:
    x = torch.zeros(N, *SHAPE)
    out = keep_known(changing_denoiser(True), IMAGE, torch.tensor(0.25))(x, torch.zeros(N, dtype=torch.int64))
    free = changing_denoiser(True)(x, torch.zeros(N, dtype=torch.int64)).x0
    torch.testing.assert_close(out.x0, 0.25 * IMAGE + 0.75 * free)
    assert torch.equal(out.variance, torch.full_like(x, 0.5))


# ---- resampling: what is free comes to agree with what is known


def sample_second_given_first(ideal_denoise, value: float, sampler: str, repeats: int, pairs: int = 600) -> Tensor:
    """Draws of the second of two numbers, the first of which is known to be `value`."""
    g, schedule = make_generators(range(4)), Schedule()
    known = torch.tensor([1.0, 0.0]).view(1, 2, 1)
    denoise = keep_known(ideal_denoise, torch.full((4, 2, pairs), value), known)
    return sample(denoise, randn((2, pairs), g), schedule, Sampling(sampler, 60, repeats), g)[:, 1]


@pytest.mark.parametrize("sampler", FOR_ANY_MODEL)
def test_resampling_approaches_the_conditional_of_a_gaussian(ideal, sampler: str) -> None:
    mean, covariance = torch.tensor([0.2, -0.1]), 0.25 * torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    denoise = ideal.correlated(mean, covariance)
    expected, spread = -0.1 + 0.8 * (0.9 - 0.2), 0.5 * (1 - 0.8**2) ** 0.5  # 0.46 and 0.30
    once, often = (sample_second_given_first(denoise, 0.9, sampler, repeats) for repeats in (1, 16))
    assert abs(once.mean() - expected) > 0.15  # held to one image alone, the free part hears of it too late
    assert abs(often.mean() - expected) < 0.06
    assert abs(often.std() - spread) < 0.05


@pytest.mark.parametrize("sampler", FOR_ANY_MODEL)
def test_resampling_selects_the_mixture_component_of_the_known_value(ideal, sampler: str) -> None:
    denoise = ideal.clusters(torch.tensor([[0.5, 0.6], [-0.5, -0.6]]), 0.15)
    # given 0.5, the second is N(0.6, 0.15^2): the other part has a chance of 2e-10
    once, often = (sample_second_given_first(denoise, 0.5, sampler, repeats) for repeats in (1, 16))
    assert (once > 0).float().mean() < 0.9
    assert (often > 0).float().mean() > 0.98
    right = often[often > 0]
    assert abs(right.mean() - 0.6) < 0.02
    assert abs(right.std() - 0.15) < 0.035


@pytest.mark.parametrize("sampler", FOR_ANY_MODEL)
def test_resampling_weighs_two_mixture_components_that_fit_the_known_value(ideal, sampler: str) -> None:
    """RePaint comes near the conditional only slowly here, and the slower, the further apart the parts lie."""
    spread, known = 0.3, 0.1
    denoise = ideal.clusters(torch.tensor([[0.3, 0.6], [-0.3, -0.6]]), spread)
    first = torch.sigmoid(torch.tensor((0.4**2 - 0.2**2) / (2 * spread**2)))  # 0.66, by Bayes' rule
    above = torch.special.ndtr(torch.tensor(0.6 / spread))  # of N(0.6, 0.3^2), what is above 0
    expected = first * above + (1 - first) * (1 - above)  # 0.65
    once, often = ((sample_second_given_first(denoise, known, sampler, n) > 0).float().mean() for n in (1, 64))
    assert (often - once) / (expected - once) > 0.75
    assert abs(often - expected) < 0.05


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_frozen_noise_shows_the_network_the_image_with_its_initial_noise(sampler: str) -> None:
    g, schedule, sampling = make_generators(range(N)), Schedule(), Sampling(sampler, 6)
    noise, seen = randn(SHAPE, g), {}

    def watched(x: Tensor, t: Tensor) -> Prediction:
        seen[int(t[0])] = x
        return changing_denoiser(variance=False)(x, t)

    first = first_timestep(schedule, sampling)
    frozen = freeze_known_noise(watched, IMAGE, KNOWN, FrozenNoise(noise, schedule, first))
    out = sample(keep_known(frozen, IMAGE, KNOWN), noise, schedule, sampling, g)
    known = KNOWN.bool().expand_as(out)
    assert torch.equal(out[known], IMAGE[known])
    assert torch.equal(seen.pop(first), noise) and len(seen) == 5
    for t, x in seen.items():
        expected = add_noise(IMAGE, noise, torch.full((N,), t), schedule)
        torch.testing.assert_close(x[known], expected[known])
        assert not torch.isclose(x[~known], expected[~known]).all()
