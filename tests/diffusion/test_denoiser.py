import pytest
import torch
from diffusers import DDPMScheduler

from unclip.diffusion.denoiser import denoiser
from unclip.diffusion.schedule import Schedule, add_noise

SHAPES = [(4, 3, 5, 6), (4, 7)]
TIMESTEPS = torch.tensor([0, 1, 500, 900])


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_network_predicts_x0(shape: tuple[int, ...], prediction_type: str) -> None:
    schedule = Schedule(prediction_type=prediction_type)
    x0, noise = draw(shape, 1), draw(shape, 2)
    xt = add_noise(x0, noise, TIMESTEPS, schedule)
    velocity = DDPMScheduler(beta_schedule="squaredcos_cap_v2").get_velocity(x0, noise, TIMESTEPS)
    answer = {"epsilon": noise, "sample": x0, "v_prediction": velocity}[prediction_type]
    denoise = denoiser(lambda x, t: answer, schedule)
    prediction = denoise(xt, TIMESTEPS)
    torch.testing.assert_close(prediction.x0, x0, rtol=0, atol=2e-5)
    assert prediction.variance is None


def test_network_output_converts_to_x0() -> None:
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
