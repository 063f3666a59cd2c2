"""The one denoising loop, over schedulers of diffusers. No guidance and no masks: those wrap the denoiser.

A sampler is the list of timesteps it visits, from the noisiest (999 of 1000) down, and a step from each to
the next. Every scheduler is handed x0 (`prediction_type="sample"`) and clips nothing itself. The step after
the last would land on x0 (the posterior, DDIM, DPM-Solver++, UniPC: all do), so it is not taken: the last x0
is the result. That is exact where schedulers round, and makes a single step well defined for all of them.
The same loop, led up the timesteps, finds the noise that a picture comes from: see `inversion.py`.
"""

from collections.abc import Callable
from functools import partial

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UnCLIPScheduler, UniPCMultistepScheduler
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.noise import Generators, randn
from unclip.diffusion.repaint import renoise, visits
from unclip.diffusion.sampler_names import check_sampler
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.errors import RequestError

DRAFT = 0.6
"""How far from the end of the schedule a draft is taken up again: enough to paint it anew, too little to forget what is
where."""

Progress = Callable[[int, int], None]

Step = Callable[[Prediction, Tensor, int, int, Generators], Tensor]
"""(prediction, x, t, next t, generators) -> x at next t."""


def sample(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    sampler: str,
    steps: int,
    generators: Generators,
    progress: Progress | None = None,
    *,
    repeats: int = 1,
    last: Denoise | None = None,
    skip: int = 0,
    draft: Tensor | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Denoise x (`b ...`, standard normal) over `steps` timesteps; return the last x0 in float32.

    generators: one per item, for samplers that draw noise. progress(done, total) is called before the first step, with
    0, and after each call of `denoise`. repeats: how often each stretch of the way is gone (RePaint; see `visits`).
    last: the denoiser of the last step, if it is another. skip: how many of the noisiest timesteps are left out; x is
    then at the level of the first of the others. draft: a rough x0 (`b ...`) to begin with; x is then the noise that
    takes it to the level of the timestep nearest to `DRAFT` of all, and those before are left out (SDEdit, Meng et al.
    2022, arXiv:2108.01073).
    eta: of the sampler "ddim", how much of the noise is drawn anew at each step, from 0 to 1.
    Raises RequestError for an unknown sampler, one that has no eta, or a number of steps outside
    1..num_train_timesteps.
    """
    build = SAMPLERS[check_sampler(sampler)]
    check_steps(steps, schedule, least=1 + skip)
    if eta:
        if sampler != "ddim":
            raise RequestError(f"sampler {sampler} has no eta, which {eta} is asked for: use ddim")
        build = partial(build, eta=eta)

    if draft is not None:
        timesteps, taken_up = build(schedule, steps)[0], DRAFT * schedule.num_train_timesteps
        skip = min(range(len(timesteps)), key=lambda i: abs(timesteps[i] - taken_up))
        x = add_noise(draft, x, torch.full((len(x),), timesteps[skip], device=x.device), schedule)

    def way() -> tuple[list[int], Step]:
        timesteps, step = build(schedule, steps)
        return timesteps[skip:], step

    return travel(denoise, x, schedule, way, generators, progress, repeats=repeats, last=last)


def check_steps(steps: int, schedule: Schedule, least: int = 1) -> None:
    """Raise RequestError for a number of steps that is not from `least` to that of the schedule."""
    if not least <= steps <= schedule.num_train_timesteps:
        raise RequestError(f"steps={steps} is out of range: choose {least} to {schedule.num_train_timesteps}")


def travel(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    way: Callable[[], tuple[list[int], Step]],
    generators: Generators,
    progress: Progress | None = None,
    *,
    repeats: int = 1,
    last: Denoise | None = None,
) -> Tensor:
    """The loop: x (`b ...`) at the first of a way's timesteps is led to the last one, whose x0 is returned.

    way: makes the timesteps and the step from each to the next anew, for a multistep solver remembers the way it came.
    """
    timesteps, step = way()
    route = visits(len(timesteps), repeats)
    x = x.float()
    if progress is not None:
        progress(0, len(route))
    for done, (i, following) in enumerate(zip(route, [*route[1:], None], strict=True), start=1):
        now = denoise if following is not None or last is None else last
        prediction = now(x, torch.full((len(x),), timesteps[i], device=x.device))
        if following is not None:
            x = step(prediction, x, timesteps[i], timesteps[i + 1], generators)
        if following is not None and following <= i:
            x = renoise(x, timesteps[i + 1], timesteps[following], schedule, generators)
            _, step = way()
        if progress is not None:
            progress(done, len(route))
    return prediction.x0


def _unclip(schedule: Schedule, steps: int) -> tuple[list[int], Step]:
    """Karlo's sampler: the posterior of DDPM over spaced timesteps, with a fixed or a learned variance."""
    scheduler = UnCLIPScheduler(**_common(schedule), variance_type=schedule.variance_type, clip_sample=False)

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        output = _with_variance(prediction)
        return scheduler.step(output, t, x, prev_timestep=t_next, generator=generators).prev_sample

    return _inclusive(schedule, steps), step


def _ddpm(schedule: Schedule, steps: int) -> tuple[list[int], Step]:
    """DDPM (Ho et al. 2020), equation 7, over the same timesteps."""
    scheduler = DDPMScheduler(**_common(schedule), variance_type=schedule.variance_type, clip_sample=False)
    scheduler.set_timesteps(timesteps=_inclusive(schedule, steps))

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return scheduler.step(_with_variance(prediction), t, x, generator=generators).prev_sample

    return scheduler.timesteps.tolist(), step


def _ddim(schedule: Schedule, steps: int, eta: float = 0.0) -> tuple[list[int], Step]:
    """DDIM (Song et al. 2021), equations 12 and 16; eta 0 follows the probability-flow ODE, 1 is like DDPM.

    DDIMScheduler steps by a fixed stride of T // steps. Unless steps divides T, that does not lead to the
    noise level of the timestep that the network is told next.
    """

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return ddim(prediction, x, t, t_next, schedule, eta, generators)

    return even(schedule, steps), step


def ddim(
    prediction: Prediction,
    x: Tensor,
    t: int,
    t_next: int,
    schedule: Schedule,
    eta: float = 0.0,
    generators: Generators = (),
) -> Tensor:
    """x (`b ...`) at timestep t -> at t_next, cleaner or (with eta 0) noisier, along the direction of its noise."""
    ab, ab_next = (float(schedule.alphas_cumprod()[time]) for time in (t, t_next))
    drawn = eta * ((1 - ab_next) / (1 - ab) * (1 - ab / ab_next)) ** 0.5 if eta else 0.0  # the paper's sigma
    noise = (x - ab**0.5 * prediction.x0) / (1 - ab) ** 0.5
    x = ab_next**0.5 * prediction.x0 + (1 - ab_next - drawn**2) ** 0.5 * noise
    return x + drawn * randn(x.shape[1:], generators, x.device) if drawn else x


def _dpmpp_2m(schedule: Schedule, steps: int) -> tuple[list[int], Step]:
    """DPM-Solver++ (Lu et al. 2022), the multistep method of order 2."""
    return _solver(DPMSolverMultistepScheduler, 2, schedule, steps)


def _unipc(schedule: Schedule, steps: int) -> tuple[list[int], Step]:
    """UniPC (Zhao et al. 2023) of order 2, B2(h), predicting x0."""
    return _solver(UniPCMultistepScheduler, 2, schedule, steps)


SAMPLERS: dict[str, Callable[[Schedule, int], tuple[list[int], Step]]] = {
    "unclip": _unclip,
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmpp-2m": _dpmpp_2m,
    "unipc": _unipc,
}


def _solver(scheduler_class: type, order: int, schedule: Schedule, steps: int) -> tuple[list[int], Step]:
    """A solver of the probability-flow ODE: no noise, and no use for a variance.

    Its timesteps are those of `even`: the final step reaches x0 from one interval above 0. "linspace" would repeat one
    if there are as many steps as timesteps; "trailing" then visits each once, but it miscounts for others (61 for one).
    """
    spacing = "linspace" if steps < schedule.num_train_timesteps else "trailing"
    scheduler = scheduler_class(**_common(schedule), solver_order=order, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return scheduler.step(prediction.x0, t, x).prev_sample

    return scheduler.timesteps.tolist(), step


def even(schedule: Schedule, steps: int) -> list[int]:
    """The timesteps of those solvers: even, from the last down to one interval above 0, or all there are."""
    last = schedule.num_train_timesteps - 1
    if steps > last:
        return list(range(last, -1, -1))
    return [round(i * (last / steps)) for i in range(steps, 0, -1)]


def _common(schedule: Schedule) -> dict[str, object]:
    return {
        "num_train_timesteps": schedule.num_train_timesteps,
        "beta_schedule": schedule.beta_schedule,
        "prediction_type": "sample",
    }


def _inclusive(schedule: Schedule, steps: int) -> list[int]:
    """Karlo's timesteps: even, from the last to 0, both included; one step alone starts at the last."""
    last = schedule.num_train_timesteps - 1
    if steps == 1:
        return [last]
    return [round(i * (last / (steps - 1))) for i in reversed(range(steps))]


def _with_variance(prediction: Prediction) -> Tensor:
    """As the schedulers with a learned variance take it: x0 and the variance, `b 2c ...`."""
    if prediction.variance is None:
        return prediction.x0
    return torch.cat([prediction.x0, prediction.variance], dim=1)
