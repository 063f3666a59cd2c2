"""The one denoising loop, over schedulers of diffusers. No guidance and no masks: those wrap the denoiser.

A sampler is the list of timesteps it visits, from the noisiest (999 of 1000) down, and a step from each to
the next. Every scheduler is handed x0 (`prediction_type="sample"`) and clips nothing itself. The step after
the last would land on x0 (the posterior, DDIM, DPM-Solver++, UniPC: all do), so it is not taken: the last x0
is the result. That is exact where schedulers round, and makes a single step well defined for all of them.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UnCLIPScheduler, UniPCMultistepScheduler
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction, Schedule
from unclip.diffusion.names import check_sampler
from unclip.errors import RequestError

Generators = Sequence[torch.Generator]
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
) -> Tensor:
    """Denoise x (`b ...`, standard normal) in `steps` calls of `denoise`; return the last x0 in float32.

    generators: one per item, for samplers that draw noise. progress(done, total) is called after each step.
    Raises RequestError for an unknown sampler or a number of steps outside 1..num_train_timesteps.
    """
    build = SAMPLERS[check_sampler(sampler)]
    if not 1 <= steps <= schedule.num_train_timesteps:
        raise RequestError(f"steps={steps} is out of range: choose 1 to {schedule.num_train_timesteps}")
    timesteps, step = build(schedule, steps)
    x = x.float()
    for done, t in enumerate(timesteps, start=1):
        prediction = denoise(x, torch.full((len(x),), t, device=x.device))
        if done < steps:
            x = step(prediction, x, t, timesteps[done], generators)
        if progress is not None:
            progress(done, steps)
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


def _ddim(schedule: Schedule, steps: int) -> tuple[list[int], Step]:
    """DDIM (Song et al. 2021) with eta 0, as what it is: DPM-Solver++ of order 1 (Lu et al. 2022, section 4).

    DDIMScheduler steps by a fixed stride of T // steps. Unless steps divides T, that does not lead to the
    noise level of the timestep that the network is told next.
    """
    return _solver(DPMSolverMultistepScheduler, 1, schedule, steps)


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

    Its timesteps are even, from the last down to one interval above 0: the final step reaches x0 from there.
    "linspace" would repeat one if there are as many steps as timesteps; "trailing" then visits each once, but
    it miscounts for other numbers (61 for one).
    """
    spacing = "linspace" if steps < schedule.num_train_timesteps else "trailing"
    scheduler = scheduler_class(**_common(schedule), solver_order=order, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, generators: Generators) -> Tensor:
        return scheduler.step(prediction.x0, t, x).prev_sample

    return scheduler.timesteps.tolist(), step


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
