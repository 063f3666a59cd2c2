import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Prediction, Schedule
from unclip.diffusion.masking import keep_known
from unclip.diffusion.names import SAMPLER_NAMES
from unclip.diffusion.noise import generators, randn
from unclip.diffusion.samplers import sample

N = 6
SHAPE = (3, 16, 16)
IMAGE = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
KNOWN = torch.zeros(N, 1, 16, 16)
KNOWN[..., 4:] = 1
LEARNED = Schedule(variance_type="learned_range")


def restless(variance: bool):
    """A denoiser that changes its mind at every step, with the largest variance if any."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(torch.sin(37 * x + t.view(-1, 1, 1, 1)), torch.ones_like(x) if variance else None)

    return denoise


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("schedule", [Schedule(), LEARNED], ids=["fixed", "learned"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_it_ends_bit_for_bit_on_the_known_image(sampler: str, schedule: Schedule, steps: int) -> None:
    g = generators(range(N))
    denoise = keep_known(restless(schedule is LEARNED), IMAGE, KNOWN)
    out = sample(denoise, randn(SHAPE, g), schedule, sampler, steps, g)
    known = KNOWN.bool().expand_as(out)
    assert torch.equal(out[known], IMAGE[known])
    assert not torch.isclose(out[~known], IMAGE[~known]).all()


@pytest.mark.parametrize("schedule", [Schedule(), LEARNED], ids=["fixed", "learned"])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_on_the_way_the_known_region_has_the_noise_level_of_its_timestep(sampler: str, schedule: Schedule) -> None:
    seen: dict[int, Tensor] = {}

    def watched(x: Tensor, t: Tensor) -> Prediction:
        seen[int(t[0])] = x
        return restless(schedule is LEARNED)(x, t)

    g = generators(range(N))
    sample(keep_known(watched, IMAGE, KNOWN), randn(SHAPE, g), schedule, sampler, 12, g)
    known = KNOWN.bool().expand_as(IMAGE)
    for t, x in seen.items():
        ab = schedule.alphas_cumprod()[t]
        noise = (x - ab.sqrt() * IMAGE)[known] / (1 - ab).sqrt()  # 3456 numbers, to be N(0, 1)
        assert abs(noise.mean()) < 0.08, t
        assert abs(noise.std() - 1) < 0.05, t


def test_a_soft_mask_blends() -> None:
    x = torch.zeros(N, *SHAPE)
    out = keep_known(restless(True), IMAGE, torch.tensor(0.25))(x, torch.zeros(N, dtype=torch.int64))
    free = restless(True)(x, torch.zeros(N, dtype=torch.int64)).x0
    torch.testing.assert_close(out.x0, 0.25 * IMAGE + 0.75 * free)
    assert torch.equal(out.variance, torch.full_like(x, 0.5))
