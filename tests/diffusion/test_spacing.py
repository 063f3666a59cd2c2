import pytest
from diffusers import DPMSolverMultistepScheduler
from diffusers.schedulers import AysSchedules

from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.sampler_names import SAMPLER_NAMES, SPACING_NAMES
from unclip.diffusion.samplers import SAMPLERS, Sampling, sample
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.spacing import AYS_LATENTS, AYS_PIXELS, spaced_timesteps

COSINE = Schedule()
LATENT = Schedule(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
BY_NOISE = SPACING_NAMES[1:]


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 400, 1000])
@pytest.mark.parametrize("spacing", BY_NOISE)
@pytest.mark.parametrize("schedule", [COSINE, LATENT])
def test_timesteps_fall_and_are_as_many_as_steps(schedule: Schedule, spacing: str, steps: int) -> None:
    found = spaced_timesteps(schedule, steps, spacing)
    assert len(found) == steps and found[0] <= 999 and found[-1] >= 0
    assert all(a > b for a, b in zip(found[:-1], found[1:], strict=True))


@pytest.mark.parametrize(("spacing", "option"), [("karras", "use_karras_sigmas"), ("log-snr", "use_lu_lambdas")])
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_spacings_are_those_of_diffusers(spacing: str, option: str, steps: int) -> None:
    theirs = DPMSolverMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **{option: True}
    )
    theirs.set_timesteps(steps)
    assert spaced_timesteps(LATENT, steps, spacing) == theirs.timesteps.tolist()


def test_align_your_steps_at_ten_steps_is_the_published_list() -> None:
    assert spaced_timesteps(LATENT, 10, "ays") == pytest.approx(AysSchedules["StableDiffusionTimesteps"], abs=4)
    ab = COSINE.alphas_cumprod()[spaced_timesteps(COSINE, 10, "ays")]
    assert (((1 - ab) / ab) ** 0.5).tolist() == pytest.approx(AYS_PIXELS[:-1], rel=0.2)
    assert list(AYS_LATENTS[:-1]) == pytest.approx(AysSchedules["StableDiffusionSigmas"][:-1])


@pytest.mark.parametrize("spacing", SPACING_NAMES)
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_every_sampler_takes_every_spacing(ideal, sampler: str, spacing: str) -> None:
    seen: list[int] = []
    truth = ideal.gaussian(0.3, 0.5)

    def denoise(x, t):
        seen.append(int(t[0]))
        return truth(x, t)

    g = make_generators(range(64))
    out = sample(denoise, randn((64,), g), COSINE, Sampling(sampler, 60, spacing=spacing), g)
    assert seen == SAMPLERS[sampler](COSINE, 60, spacing)[0]
    if spacing != "uniform":
        assert seen == spaced_timesteps(COSINE, 60, spacing)
    assert abs(out.mean() - 0.3) < 0.03 and abs(out.std() - 0.5) < 0.06


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "unipc"])
@pytest.mark.parametrize("spacing", BY_NOISE)
def test_solvers_end_where_the_ode_does(ideal, sampler: str, spacing: str) -> None:
    x = randn((16,), make_generators(range(64)))
    out = sample(ideal.gaussian(0.3, 0.5), x, COSINE, Sampling(sampler, 40, spacing=spacing), [])
    assert (out - ideal.flow(x, 0.3, 0.5)).square().mean().sqrt() < 0.02


@pytest.mark.parametrize(("third", "second"), [("dpmpp-3m", "dpmpp-2m"), ("unipc-3", "unipc")])
def test_order_three_is_closer_to_the_ode_than_order_two(ideal, third: str, second: str) -> None:
    """With evenly spaced log noise levels. With uniform timesteps the first steps are too large for a higher order."""
    x = randn((16,), make_generators(range(64)))
    exact, errors = ideal.flow(x, 0.3, 0.5), []
    for name in (third, second):
        out = sample(ideal.gaussian(0.3, 0.5), x, COSINE, Sampling(name, 25, spacing="log-snr"), [])
        errors.append(float((out - exact).square().mean().sqrt()))
    assert errors[0] < 0.6 * errors[1] < 0.01
