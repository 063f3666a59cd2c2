"""Every sampler against the scheduler of diffusers, used as its own pipelines use it."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    UnCLIPScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from unclip.diffusion.denoiser import Prediction, denoiser
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.repaint import resampling_schedule
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.diffusion.samplers import SAMPLERS, Sampling, noise_draft, sample
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.wrappers import clamp_x0
from unclip.errors import RequestError

SHAPE = (3, 4, 4)
SEEDS = [11, 12]
COSINE = {"beta_schedule": "squaredcos_cap_v2"}


def network(x: Tensor, t: Tensor) -> Tensor:
    """A smooth function of x and t that is no good at denoising: any will do."""
    return 0.9 * x + 0.4 * torch.sin(2 * x.roll(1, dims=1) + t.view(-1, *[1] * (x.ndim - 1)) / 300)


def network_with_variance(x: Tensor, t: Tensor) -> Tensor:
    return torch.cat([network(x, t), torch.sin(3 * x)], dim=1)


Run = tuple[list[int], Tensor, Tensor]


def ours(net, schedule: Schedule, sampler: str, steps: int, shape=SHAPE) -> Run:
    """Timesteps; what the network saw at each (`steps b ...`); the result."""
    times, seen = [], []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        times.append(int(t[0]))
        seen.append(x)
        return net(x, t)

    g = make_generators(SEEDS)
    denoise = clamp_x0(denoiser(watched, schedule), schedule.clip)
    result = sample(denoise, randn(shape, g), schedule, Sampling(sampler, steps), g)
    return times, torch.stack(seen), result


def native(net, scheduler, steps: int, shape=SHAPE, **options) -> Run:
    """The same by the loop that diffusers' pipelines have: the raw output goes into the scheduler."""
    g = make_generators(SEEDS)
    x, seen = randn(shape, g), []
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps.tolist()
    for i, t in enumerate(times):
        seen.append(x)
        if isinstance(scheduler, UnCLIPScheduler):
            options["prev_timestep"] = times[i + 1] if i + 1 < steps else None
        if not isinstance(scheduler, UniPCMultistepScheduler):
            options["generator"] = g
        x = scheduler.step(net(x, torch.full((len(x),), t)), t, x, **options).prev_sample
    return times, torch.stack(seen), x


def assert_same(actual: Run, expected: Run, final: float = 1e-4) -> None:
    assert actual[0] == expected[0]
    torch.testing.assert_close(actual[1], expected[1], rtol=0, atol=2e-4)
    torch.testing.assert_close(actual[2], expected[2], rtol=0, atol=final)


# UnCLIPScheduler ends on x0 * betas[0] / (1 - alphas_cumprod[0]): 0.9995 x0, by rounding. Ours ends on x0.
ROUNDING = 1e-3


@pytest.mark.parametrize("steps", [2, 7, 25])
def test_unclip_with_eps(steps: int) -> None:
    assert_same(ours(network, Schedule(), "unclip", steps), native(network, UnCLIPScheduler(), steps), ROUNDING)


@pytest.mark.parametrize("steps", [2, 7, 25])
def test_unclip_with_learned_variance_as_karlos_decoder(steps: int) -> None:
    actual = ours(network_with_variance, Schedule(variance_type="learned_range"), "unclip", steps)
    expected = native(network_with_variance, UnCLIPScheduler(variance_type="learned_range"), steps)
    assert_same(actual, expected, ROUNDING)


def test_unclip_with_x0_clipped_at_5_as_karlos_prior() -> None:
    actual = ours(network, Schedule(prediction_type="sample", clip=5.0), "unclip", 25, shape=(8,))
    scheduler = UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    assert_same(actual, native(network, scheduler, 25, shape=(8,)), 5 * ROUNDING)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [3, 10])
class TestNative:
    """The scheduler is told what the network predicts, and clips by itself."""

    def test_ddpm(self, steps: int, prediction_type: str) -> None:
        actual = ours(network, Schedule(prediction_type=prediction_type), "ddpm", steps)
        scheduler = DDPMScheduler(
            **COSINE,
            prediction_type=prediction_type,
            variance_type="fixed_small_log",
            timestep_spacing="linspace",
        )
        assert_same(actual, native(network, scheduler, steps))

    def test_ddpm_with_learned_variance(self, steps: int, prediction_type: str) -> None:
        learned = Schedule(prediction_type=prediction_type, variance_type="learned_range")
        actual = ours(network_with_variance, learned, "ddpm", steps)
        scheduler = DDPMScheduler(
            **COSINE,
            prediction_type=prediction_type,
            variance_type="learned_range",
            timestep_spacing="linspace",
        )
        assert_same(actual, native(network_with_variance, scheduler, steps))

    # "Dynamic thresholding" with a maximum of 1 is how these two clip to [-1, 1].
    @pytest.mark.parametrize(("name", "order"), [("dpmpp-2m", 2), ("dpmpp-3m", 3)])
    def test_dpmpp(self, steps: int, prediction_type: str, name: str, order: int) -> None:
        actual = ours(network, Schedule(prediction_type=prediction_type), name, steps)
        scheduler = DPMSolverMultistepScheduler(
            **COSINE, prediction_type=prediction_type, thresholding=True, sample_max_value=1.0, solver_order=order
        )
        assert_same(actual, native(network, scheduler, steps))

    @pytest.mark.parametrize(("name", "order"), [("unipc", 2), ("unipc-3", 3)])
    def test_unipc(self, steps: int, prediction_type: str, name: str, order: int) -> None:
        actual = ours(network, Schedule(prediction_type=prediction_type), name, steps)
        scheduler = UniPCMultistepScheduler(
            **COSINE, prediction_type=prediction_type, thresholding=True, sample_max_value=1.0, solver_order=order
        )
        assert_same(actual, native(network, scheduler, steps))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_at_every_timestep(prediction_type: str) -> None:
    actual = ours(network, Schedule(prediction_type=prediction_type), "ddim", 1000)
    scheduler = DDIMScheduler(**COSINE, prediction_type=prediction_type, timestep_spacing="trailing")
    assert_same(actual, native(network, scheduler, 1000, use_clipped_model_output=True))


def test_ddim_between_any_two_timesteps_is_the_papers_equation_12() -> None:
    schedule = Schedule()
    times, seen, _ = ours(network, schedule, "ddim", 7)
    denoise = clamp_x0(denoiser(network, schedule), 1.0)
    ab = schedule.alphas_cumprod().double()
    for i, (t, t_next) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x0 = denoise(seen[i], torch.full((2,), t)).x0
        eps = (seen[i] - ab[t].sqrt() * x0) / (1 - ab[t]).sqrt()
        expected = ab[t_next].sqrt() * x0 + (1 - ab[t_next]).sqrt() * eps
        torch.testing.assert_close(seen[i + 1], expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 48, 61, 1000])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_timesteps_start_at_the_last_and_fall(sampler: str, steps: int) -> None:
    times, _ = SAMPLERS[sampler](Schedule(), steps, "uniform")
    assert len(times) == steps
    assert times[0] == 999
    assert all(a > b >= 0 for a, b in zip(times[:-1], times[1:], strict=True))


@pytest.mark.parametrize("schedule", [Schedule(), Schedule(variance_type="learned_range")])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_one_step_gives_the_clamped_x0_of_the_last_timestep(sampler: str, schedule: Schedule) -> None:
    net = network if schedule.variance_type == "fixed_small_log" else network_with_variance
    _, _, result = ours(net, schedule, sampler, 1)
    x = randn(SHAPE, make_generators(SEEDS))
    expected = clamp_x0(denoiser(net, schedule), 1.0)(x, torch.full((2,), 999)).x0
    assert torch.equal(result, expected)


@pytest.mark.parametrize("steps", [4, 10, 25])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_samples_stay_bounded_from_the_noisiest_timestep(sampler: str, steps: int) -> None:
    _, seen, result = ours(network, Schedule(), sampler, steps)
    assert seen.abs().max() < 6
    assert result.abs().max() <= 1


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_an_item_is_the_same_alone_and_at_every_place(sampler: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 6, 3, padding=1))
    schedule = Schedule(prediction_type="v_prediction", variance_type="learned_range")
    denoise = clamp_x0(denoiser(lambda x, t: net(x), schedule), 1.0)

    @torch.inference_mode()
    def run(seeds: list[int]) -> Tensor:
        g = make_generators(seeds)
        return sample(denoise, randn((3, 8, 8), g), schedule, Sampling(sampler, 6), g)

    alone = {seed: run([seed])[0] for seed in (0, 1, 2, 3)}
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [2, 0]):
        for seed, item in zip(order, run(order), strict=True):
            torch.testing.assert_close(item, alone[seed], rtol=0, atol=1e-5)


def test_sampler_names_match_those_of_requests() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES


def test_an_unknown_sampler_error_lists_names_and_suggests_one() -> None:
    with pytest.raises(RequestError, match="did you mean 'dpmpp-2m'") as caught:
        ours(network, Schedule(), "dpmpp2m", 3)
    assert all(name in str(caught.value) for name in SAMPLER_NAMES)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_steps_out_of_range(steps: int) -> None:
    with pytest.raises(RequestError, match="1 to 1000"):
        ours(network, Schedule(), "ddim", steps)


def test_progress_and_integer_timesteps() -> None:
    calls, dtypes = [], set()

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        dtypes.add(t.dtype)
        assert t.shape == (2,)
        return Prediction(x * 0)

    g = make_generators(SEEDS)
    sample(denoise, randn(SHAPE, g), Schedule(), Sampling("unipc", 3), g, progress=lambda *call: calls.append(call))
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert dtypes == {torch.int64}


# ---- the last step, and drafts


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_last_step_can_have_its_own_denoiser(repeats: int) -> None:
    calls: list[int] = []

    def counted(x: Tensor, t: Tensor) -> Prediction:
        calls.append(int(t[0]))
        return Prediction(torch.zeros_like(x))

    g = make_generators(SEEDS)
    out = sample(
        counted, randn(SHAPE, g), Schedule(), Sampling("ddim", 5, repeats), g, last=lambda x, t: Prediction(x * 0 + 7)
    )
    assert torch.equal(out, torch.full_like(out, 7))
    assert len(calls) == len(resampling_schedule(5, repeats)) - 1


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 25, 100])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_a_draft_starts_at_its_noise_level(sampler: str, steps: int) -> None:
    g, schedule = make_generators(SEEDS), Schedule()
    draft, noise = randn(SHAPE, g) / 3, randn(SHAPE, g)
    seen: list[tuple[int, Tensor]] = []

    def sure(x: Tensor, t: Tensor) -> Prediction:
        seen.append((int(t[0]), x))
        return Prediction(draft)

    x, sampling = noise_draft(draft, noise, schedule, Sampling(sampler, steps))
    sample(sure, x, schedule, sampling, g)
    every = [int(t) for t in SAMPLERS[sampler](schedule, steps, "uniform")[0]]
    t, x = seen[0]
    assert [t for t, _ in seen] == every[every.index(t) :]
    assert all(abs(t - 600) <= abs(other - 600) for other in every)
    ab = schedule.alphas_cumprod()[t]
    torch.testing.assert_close(x, ab.sqrt() * draft + (1 - ab).sqrt() * noise)
    for t, x in seen:  # and the levels after it are right too
        ab = schedule.alphas_cumprod()[t]
        assert ((x - ab.sqrt() * draft) / (1 - ab).sqrt()).std().item() == pytest.approx(1, abs=0.3)


LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "clip_sample": False}


@pytest.mark.parametrize("steps", [1, 4, 7, 50])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_schedules_of_latent_models_are_sampled_as_diffusers_does(
    beta_schedule: str, prediction: str, steps: int
) -> None:
    config = {**LATENT, "beta_schedule": beta_schedule, "prediction_type": prediction}
    for sampler, scheduler in (
        ("ddpm", DDPMScheduler(**config)),
        ("ddim", DDIMScheduler(**config, set_alpha_to_one=False)),
        ("ddim", DDIMScheduler(**config)),
    ):
        schedule = Schedule.from_ddpm_config(dict(scheduler.config))
        assert_same(ours(network, schedule, sampler, steps), native(network, scheduler, steps), 1e-3)


def test_a_variance_that_the_schedule_does_not_use_is_left_out() -> None:
    schedule = Schedule.from_ddpm_config({**LATENT, "beta_schedule": "linear"})
    with_variance = ours(network_with_variance, schedule, "ddpm", 6)
    assert_same(with_variance, ours(network, schedule, "ddpm", 6))
