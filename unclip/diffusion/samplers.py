"""The one denoising loop, over schedulers of diffusers. Guidance and masks are wrappers around the denoiser.

A sampler is a list of timesteps, from the noisiest (999 of 1000) down, and a step from each to the next. Every
scheduler gets x0 (`prediction_type="sample"`) and clips nothing itself. The step after the last timestep would return
x0 for every sampler here (the posterior, DDIM, DPM-Solver++, UniPC), so it is not taken: the last x0 is the result.
That avoids rounding in the schedulers, and defines a single step for all samplers. The one exception is DDIM with
`Schedule.ends_at_first_level`.
`inversion.py` runs the same loop up the timesteps to find the noise of an image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unclip import UnCLIPScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.noise import Generators, randn
from unclip.diffusion.repaint import renoise, resampling_schedule
from unclip.diffusion.sampler_names import check_sampler
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.diffusion.spacing import even_timesteps, inclusive_timesteps, leading_timesteps, spaced_timesteps
from unclip.errors import RequestError

DRAFT_NOISE = 0.6
"""Noise level of a draft, as a fraction of the schedule: high enough to renew its details, low enough to keep its
layout."""

Progress = Callable[[int, int], None]
"""(steps done, total)."""

Step = Callable[[Prediction, Tensor, int, int, Generators], Tensor]
"""(prediction, x, t, next t, generators) -> x at next t."""


@dataclass(frozen=True)
class Sampling:
    """The settings of sampling: the sampler and its timesteps.

    sampler   a name in SAMPLERS
    steps     number of timesteps, 1 .. num_train_timesteps
    resample  RePaint passes over each stretch of timesteps, from 1
    skip      number of the noisiest timesteps left out; x then starts at the noise level of the first one that remains
    eta       sampler "ddim" only: fraction of the noise that each step renews, 0 .. 1
    spacing   a name in SPACING_NAMES
    """

    sampler: str
    steps: int
    resample: int = 1
    skip: int = 0
    eta: float = 0.0
    spacing: str = "uniform"


@dataclass(frozen=True)
class Solver:
    """The timesteps of a sampler, in the order of the loop, and the step from each to the next.

    A multistep solver remembers its previous predictions, so each pass of RePaint needs a new one.
    end: the timestep to which a last step goes; None if the last x0 is the result.
    """

    schedule: Schedule
    timesteps: list[int]
    step: Step
    end: int | None = None


def sample(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    sampling: Sampling,
    generators: Generators,
    last: Denoise | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Denoise x (`b ...`, standard normal) and return the last x0, in float32.

    generators: one per item, for samplers that add noise.
    last: the denoiser of the last step, if it is a different one.
    progress: called with 0 before the first step, and after each step.

    Raises RequestError for an unknown sampler, an eta that the sampler lacks, or steps out of range.
    """
    build = SAMPLERS[check_sampler(sampling.sampler)]
    check_steps(sampling.steps, schedule, least=1 + sampling.skip)
    if sampling.eta:
        if sampling.sampler != "ddim":
            raise RequestError(f"sampler {sampling.sampler} has no eta, but eta is {sampling.eta}: use ddim")
        build = partial(build, eta=sampling.eta)

    def make_solver() -> Solver:
        timesteps, step = build(schedule, sampling.steps, sampling.spacing)
        ends_at_first = schedule.ends_at_first_level and sampling.sampler == "ddim" and timesteps[-1] > 0
        end = 0 if ends_at_first else None
        return Solver(schedule, timesteps[sampling.skip :], step, end)

    return denoise_loop(denoise, x, make_solver, generators, sampling.resample, last, progress)


def noise_draft(
    draft: Tensor, noise: Tensor, schedule: Schedule, sampling: Sampling, level: float = DRAFT_NOISE
) -> tuple[Tensor, Sampling]:
    """x and the sampling that continue from a draft: SDEdit (Meng et al. 2022, arXiv:2108.01073).

    draft: a rough x0 `b ...`; noise: standard normal `b ...`. The draft is noised to the timestep nearest to
    the fraction `level` of the schedule; the noisier timesteps are skipped. Raises RequestError as `sample`.
    """
    check_steps(sampling.steps, schedule)
    timesteps, _ = SAMPLERS[check_sampler(sampling.sampler)](schedule, sampling.steps, sampling.spacing)
    wanted = level * schedule.num_train_timesteps
    skip = min(range(len(timesteps)), key=lambda i: abs(timesteps[i] - wanted))
    t = torch.full((len(noise),), timesteps[skip], device=noise.device)
    return add_noise(draft, noise, t, schedule), replace(sampling, skip=skip)


def first_timestep(schedule: Schedule, sampling: Sampling) -> int:
    """The noisiest timestep of a sampling. Raises RequestError as `sample`."""
    check_steps(sampling.steps, schedule, least=1 + sampling.skip)
    timesteps, _ = SAMPLERS[check_sampler(sampling.sampler)](schedule, sampling.steps, sampling.spacing)
    return timesteps[sampling.skip]


def check_steps(steps: int, schedule: Schedule, least: int = 1) -> None:
    """Raise RequestError for a number of steps outside least .. num_train_timesteps."""
    if not least <= steps <= schedule.num_train_timesteps:
        raise RequestError(f"steps={steps} is out of range: choose {least} to {schedule.num_train_timesteps}")


def denoise_loop(
    denoise: Denoise,
    x: Tensor,
    make_solver: Callable[[], Solver],
    generators: Generators,
    resample: int = 1,
    last: Denoise | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The loop: step x (`b ...`) from a solver's first timestep to its last, and return the x0 there.

    make_solver: called once, and again after each jump back of RePaint. Other arguments as in `sample`.
    """
    solver = make_solver()
    timesteps = solver.timesteps
    order = resampling_schedule(len(timesteps), resample)
    x = x.float()
    prediction = Prediction(x)  # replaced at once: there is at least one timestep
    if progress is not None:
        progress(0, len(order))
    for done, (i, following) in enumerate(zip(order, [*order[1:], None], strict=True), start=1):
        now = denoise if following is not None or last is None else last
        prediction = now(x, torch.full((len(x),), timesteps[i], device=x.device))
        if following is not None:
            x = solver.step(prediction, x, timesteps[i], timesteps[i + 1], generators)
        if following is not None and following <= i:  # RePaint: jump back to the start of the stretch
            x = renoise(x, timesteps[i + 1], timesteps[following], solver.schedule, generators)
            solver = make_solver()
        if progress is not None:
            progress(done, len(order))
    return prediction.x0 if solver.end is None else solver.step(prediction, x, timesteps[-1], solver.end, generators)


def _unclip(schedule: Schedule, steps: int, spacing: str) -> tuple[list[int], Step]:
    """Karlo's sampler: the posterior of DDPM over spaced timesteps, with a fixed or a learned variance."""
    kind: Any = schedule.variance_type
    scheduler: Any = UnCLIPScheduler(schedule.num_train_timesteps, kind, clip_sample=False, prediction_type="sample")
    # It constructs cosine schedules only, and steps by these.
    scheduler.alphas_cumprod = schedule.alphas_cumprod()
    scheduler.betas = schedule.betas()
    scheduler.alphas = 1 - scheduler.betas

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        output = _with_variance(prediction)
        return scheduler.step(output, t, x, prev_timestep=t_next, generator=generators).prev_sample

    return _timesteps(inclusive_timesteps, schedule, steps, spacing), step


def _ddpm(schedule: Schedule, steps: int, spacing: str) -> tuple[list[int], Step]:
    """DDPM (Ho et al. 2020), equation 7, over the same timesteps."""
    scheduler: Any = DDPMScheduler(**_common(schedule, variance_type=schedule.variance_type, clip_sample=False))
    uniform = leading_timesteps if schedule.spacing == "leading" else inclusive_timesteps
    scheduler.set_timesteps(timesteps=_timesteps(uniform, schedule, steps, spacing))

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return scheduler.step(_with_variance(prediction), t, x, generator=generators).prev_sample

    return scheduler.timesteps.tolist(), step


def _ddim(schedule: Schedule, steps: int, spacing: str, eta: float = 0.0) -> tuple[list[int], Step]:
    """DDIM (Song et al. 2021), equations 12 and 16; eta 0 follows the probability-flow ODE, 1 is like DDPM.

    Written here because DDIMScheduler steps by a fixed stride of T // steps. Unless steps divides T, that stride misses
    the noise level of the next timestep.
    """

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return ddim_step(prediction, x, t, t_next, schedule, eta, generators)

    return ddim_timesteps(schedule, steps, spacing), step


def ddim_step(
    prediction: Prediction,
    x: Tensor,
    t: int,
    t_next: int,
    schedule: Schedule,
    eta: float = 0.0,
    generators: Generators = (),
) -> Tensor:
    """x (`b ...`) at timestep t -> at t_next, which may be cleaner or, with eta 0, noisier."""
    ab, ab_next = (float(schedule.alphas_cumprod()[time]) for time in (t, t_next))
    sigma = eta * ((1 - ab_next) / (1 - ab) * (1 - ab / ab_next)) ** 0.5 if eta else 0.0
    noise = (x - ab**0.5 * prediction.x0) / (1 - ab) ** 0.5
    x = ab_next**0.5 * prediction.x0 + (1 - ab_next - sigma**2) ** 0.5 * noise
    return x + sigma * randn(x.shape[1:], generators, x.device) if sigma else x


def _dpmpp(order: int, schedule: Schedule, steps: int, spacing: str) -> tuple[list[int], Step]:
    """DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), the multistep method."""
    return _ode_solver(DPMSolverMultistepScheduler, order, schedule, steps, spacing)


def _unipc(order: int, schedule: Schedule, steps: int, spacing: str) -> tuple[list[int], Step]:
    """UniPC (Zhao et al. 2023, arXiv:2302.04867), B2(h), predicting x0."""
    return _ode_solver(UniPCMultistepScheduler, order, schedule, steps, spacing)


def _consistency(schedule: Schedule, steps: int, spacing: str) -> tuple[list[int], Step]:
    """Multistep consistency sampling (Song et al. 2023, arXiv:2303.01469, algorithm 1): each x0 gets new noise.

    It needs a network that predicts the end of the trajectory from any timestep, not the mean of all possible ends.
    """

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        noise = randn(x.shape[1:], generators, x.device)
        return add_noise(prediction.x0, noise, torch.full((len(x),), t_next, device=x.device), schedule)

    return _timesteps(even_timesteps, schedule, steps, spacing), step


SAMPLERS: dict[str, Callable[..., tuple[list[int], Step]]] = {
    "unclip": _unclip,
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmpp-2m": partial(_dpmpp, 2),
    "dpmpp-3m": partial(_dpmpp, 3),
    "unipc": partial(_unipc, 2),
    "unipc-3": partial(_unipc, 3),
    "consistency": _consistency,
}
"""name -> function of (schedule, steps, spacing) that returns the timesteps and the step between them."""


def _ode_solver(
    scheduler_class: type, order: int, schedule: Schedule, steps: int, spacing: str
) -> tuple[list[int], Step]:
    """A solver of the probability-flow ODE. It adds no noise and ignores a learned variance.

    Its uniform timesteps equal `even_timesteps`: the final step reaches x0 from one interval above 0. With as many
    steps as timesteps, diffusers' "linspace" would repeat one; "trailing" then visits each once, but miscounts for
    other numbers of steps (61, for one).
    """
    uniform = "linspace" if steps < schedule.num_train_timesteps else "trailing"
    scheduler = scheduler_class(**_common(schedule), solver_order=order, timestep_spacing=uniform)
    scheduler.set_timesteps(steps)
    if spacing != "uniform":  # UniPC's scheduler takes no timesteps
        scheduler.timesteps = torch.tensor(spaced_timesteps(schedule, steps, spacing))
        ab = schedule.alphas_cumprod()[scheduler.timesteps]
        scheduler.sigmas = torch.cat([((1 - ab) / ab) ** 0.5, torch.zeros(1)])

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return scheduler.step(prediction.x0, t, x).prev_sample

    return scheduler.timesteps.tolist(), step


def ddim_timesteps(schedule: Schedule, steps: int, spacing: str = "uniform") -> list[int]:
    """The timesteps of DDIM, and of its inversion."""
    uniform = leading_timesteps if schedule.spacing == "leading" else even_timesteps
    return _timesteps(uniform, schedule, steps, spacing)


def _timesteps(
    uniform: Callable[[Schedule, int], list[int]], schedule: Schedule, steps: int, spacing: str
) -> list[int]:
    """The timesteps of a sampler. uniform: makes its own."""
    return uniform(schedule, steps) if spacing == "uniform" else spaced_timesteps(schedule, steps, spacing)


def _common(schedule: Schedule, **more: Any) -> dict[str, Any]:
    """The arguments of a scheduler of diffusers that gets x0."""
    return {
        "num_train_timesteps": schedule.num_train_timesteps,
        "beta_schedule": schedule.beta_schedule,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "prediction_type": "sample",
        **more,
    }


def _with_variance(prediction: Prediction) -> Tensor:
    """x0 and the learned variance as `b 2c ...`, the form that diffusers' schedulers take; x0 alone without one."""
    if prediction.variance is None:
        return prediction.x0
    return torch.cat([prediction.x0, prediction.variance], dim=1)
