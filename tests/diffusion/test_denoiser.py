import math

import pytest
import torch
from diffusers import DDPMScheduler, UnCLIPScheduler

from unclip.diffusion.denoiser import denoiser
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.errors import CheckpointError

SHAPES = [(4, 3, 5, 6), (4, 7)]
TIMESTEPS = torch.tensor([0, 1, 500, 900])


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_alpha_bar_is_that_of_diffusers_and_of_the_cosine_formula() -> None:
    ab = Schedule().alphas_cumprod()
    assert ab.dtype == torch.float32
    assert torch.equal(ab, DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod)
    cosine = [math.cos(((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(999)]
    start = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(ab[:999], torch.tensor(cosine) / start, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_network_that_says_all_it_could_learn_predicts_x0(shape: tuple[int, ...], prediction_type: str) -> None:
    schedule = Schedule(prediction_type=prediction_type)
    x0, noise = draw(shape, 1), draw(shape, 2)
    xt = add_noise(x0, noise, TIMESTEPS, schedule)
    velocity = DDPMScheduler(beta_schedule="squaredcos_cap_v2").get_velocity(x0, noise, TIMESTEPS)
    answer = {"epsilon": noise, "sample": x0, "v_prediction": velocity}[prediction_type]
    denoise = denoiser(lambda x, t: answer, schedule)
    prediction = denoise(xt, TIMESTEPS)
    torch.testing.assert_close(prediction.x0, x0, rtol=0, atol=2e-5)
    assert prediction.variance is None


@pytest.mark.parametrize("shape", SHAPES)
def test_noising_is_that_of_diffusers(shape: tuple[int, ...]) -> None:
    native = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    x0, noise = draw(shape, 1), draw(shape, 2)
    torch.testing.assert_close(add_noise(x0, noise, TIMESTEPS, Schedule()), native.add_noise(x0, noise, TIMESTEPS))


def test_random_output_becomes_x0_by_the_formulas() -> None:
    x, output = draw((4, 3, 2, 2), 1).double(), draw((4, 3, 2, 2), 2).double()
    ab = Schedule().alphas_cumprod().double()[TIMESTEPS].view(4, 1, 1, 1)
    expected = {
        "epsilon": (x - (1 - ab).sqrt() * output) / ab.sqrt(),
        "v_prediction": ab.sqrt() * x - (1 - ab).sqrt() * output,
        "sample": output,
    }
    for prediction_type, x0 in expected.items():
        denoise = denoiser(lambda x, t: output, Schedule(prediction_type=prediction_type))
        torch.testing.assert_close(denoise(x, TIMESTEPS).x0, x0)


def test_at_the_last_timestep_x0_is_finite_in_float32() -> None:
    schedule, last = Schedule(), torch.tensor([999])
    assert 1 / schedule.alphas_cumprod()[999].sqrt() > 20_000
    x = draw((1, 3, 8, 8), 1)
    assert denoiser(lambda x, t: -x, schedule)(x, last).x0.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_learned_variance_is_split_off(shape: tuple[int, ...]) -> None:
    x, output, variance = draw(shape, 1), draw(shape, 2), draw(shape, 3)
    learned = Schedule(variance_type="learned_range")
    both = denoiser(lambda x, t: torch.cat([output, variance], dim=1), learned)(x, TIMESTEPS)
    assert torch.equal(both.x0, denoiser(lambda x, t: output, Schedule())(x, TIMESTEPS).x0)
    assert torch.equal(both.variance, variance)


def test_a_half_precision_network_gets_float32_algebra() -> None:
    x, output = draw((4, 3, 2, 2), 1), draw((4, 3, 2, 2), 2).half()
    half = denoiser(lambda x, t: output, Schedule())(x, TIMESTEPS).x0
    assert half.dtype == torch.float32
    assert torch.equal(half, denoiser(lambda x, t: output.float(), Schedule())(x, TIMESTEPS).x0)


def test_training_works_on_a_schedule_that_sampling_used_first() -> None:
    schedule = Schedule(num_train_timesteps=123, prediction_type="v_prediction")
    with torch.inference_mode():
        schedule.alphas_cumprod()
    weight = torch.ones(3, requires_grad=True)
    x0 = denoiser(lambda x, t: x * weight, schedule)(torch.ones(2, 3), torch.tensor([5, 9])).x0
    (x0.sum() + (weight * schedule.alphas_cumprod()[:3]).sum()).backward()
    assert weight.grad is not None


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


def test_karlos_older_config_leaves_out_the_beta_schedule() -> None:
    config = {"_class_name": "UnCLIPScheduler", "clip_sample_range": 5.0, "prediction_type": "sample"}
    assert Schedule.from_config(config) == Schedule(prediction_type="sample", clip=5.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta_schedule", "linear"),
        ("prediction_type", "flow"),
        ("variance_type", "learned"),
        ("rescale_betas_zero_snr", True),
        *(("num_train_timesteps", value) for value in (1.5, None, [], -1, 1, True, "x", 10**9)),
        *(("clip_sample_range", value) for value in ("x", 0, -1, float("nan"))),
    ],
)
def test_what_is_not_supported_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=key):
        Schedule.from_config({key: value})
