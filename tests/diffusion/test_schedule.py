import math

import pytest
import torch
from diffusers import DDPMScheduler, UnCLIPScheduler

from unclip.diffusion.schedule import Schedule, add_noise
from unclip.errors import CheckpointError

SHAPES = [(4, 3, 5, 6), (4, 7)]


TIMESTEPS = torch.tensor([0, 1, 500, 900])


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_alpha_bar_equals_that_of_diffusers_and_the_cosine_formula() -> None:
    ab = Schedule().alphas_cumprod()
    assert ab.dtype == torch.float32
    assert torch.equal(ab, DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod)
    cosine = [math.cos(((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(999)]
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(ab[:999], torch.tensor(cosine) / start, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_add_noise_equals_that_of_diffusers(shape: tuple[int, ...]) -> None:
    native = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise = draw(shape, 1), draw(shape, 2)
    torch.testing.assert_close(add_noise(x0, noise, TIMESTEPS, Schedule()), native.add_noise(x0, noise, TIMESTEPS))


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(variance_type="learned_range"),
        Schedule(prediction_type="sample", clip=5.0),
        Schedule(prediction_type="v_prediction", clip=None, num_train_timesteps=500),
    ],
)
def test_config_survives_a_round_trip_through_diffusers(schedule: Schedule) -> None:
    config = schedule.to_config()
    assert Schedule.from_config(config) == schedule
    native = {"UnCLIPScheduler": UnCLIPScheduler, "DDPMScheduler": DDPMScheduler}[config["_class_name"]]
    assert Schedule.from_config(dict(native.from_config(config).config)) == schedule


def test_a_config_without_beta_schedule_uses_the_default() -> None:
    config = {"_class_name": "UnCLIPScheduler", "clip_sample_range": 5.0, "prediction_type": "sample"}
    assert Schedule.from_config(config) == Schedule(prediction_type="sample", clip=5.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "sigmoid"),
        ("prediction_type", "flow"),
        ("variance_type", "learned"),
        ("rescale_betas_zero_snr", True),
        *(("num_train_timesteps", value) for value in (1.5, None, [], -1, 1, True, "x", 10**9)),
        *(("clip_sample_range", value) for value in ("x", 0, -1, float("nan"))),
    ],
)
def test_unsupported_values_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=key):
        Schedule.from_config({key: value})
