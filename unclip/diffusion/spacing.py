"""The timesteps of a sampling: evenly spaced, as each sampler defines it, or spaced by noise level.

A noise level is sigma = sqrt((1 - alpha bar) / alpha bar). Timesteps are integers, the labels that the network was
trained with, so a noise level is rounded to the nearest timestep's.
"""

import numpy as np

from unclip.diffusion.schedule import Schedule

MAX_SIGMA = 160.0
"""Largest noise level of the spacings by noise level. The cosine schedule begins at 20,291, where no step is useful."""
RHO = 7.0

# Optimized for 10 steps, and the end of the last one: Sabour et al. 2024, "Align Your Steps" (arXiv:2404.14507).
AYS_PIXELS = (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006)
"""For DeepFloyd-IF, a model of 64x64 pixels."""
AYS_LATENTS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
"""For Stable Diffusion 1.5."""


def spaced_timesteps(schedule: Schedule, steps: int, spacing: str) -> list[int]:
    """`steps` falling timesteps for a spacing by noise level: a name in `sampler_names.SPACING_NAMES` but "uniform".

    "karras": Karras et al. 2022 (arXiv:2206.00364), equation 5. "log-snr": evenly spaced logarithms of the noise level
    (Lu et al. 2022, arXiv:2206.00927). "ays": Align Your Steps, interpolated log-linearly to other numbers of steps.
    """
    ab = schedule.alphas_cumprod().double().numpy()
    levels = ((1 - ab) / ab) ** 0.5  # rising with the timestep
    high, low = min(levels[-1], MAX_SIGMA), levels[0]
    if spacing == "karras":
        sigmas = np.linspace(high ** (1 / RHO), low ** (1 / RHO), steps) ** RHO
    elif spacing == "log-snr":
        sigmas = np.geomspace(high, low, steps)
    else:
        table = AYS_PIXELS if schedule.beta_schedule == "squaredcos_cap_v2" else AYS_LATENTS
        ends = np.linspace(0, 1, len(table))
        sigmas = np.exp(np.interp(np.linspace(0, 1, steps + 1), ends, np.log(table)))[:-1]
    nearest = np.interp(np.log(sigmas), np.log(levels), np.arange(len(levels))).round().astype(int).tolist()
    return _falling(nearest, schedule.num_train_timesteps)


def even_timesteps(schedule: Schedule, steps: int) -> list[int]:
    """Evenly spaced timesteps from the last down to one interval above 0, or all of them."""
    last = schedule.num_train_timesteps - 1
    if steps > last:
        return list(range(last, -1, -1))
    return [round(i * (last / steps)) for i in range(steps, 0, -1)]


def inclusive_timesteps(schedule: Schedule, steps: int) -> list[int]:
    """Karlo's timesteps: evenly spaced from the last to 0, both included; a single step is the last."""
    last = schedule.num_train_timesteps - 1
    if steps == 1:
        return [last]
    return [round(i * (last / (steps - 1))) for i in reversed(range(steps))]


def leading_timesteps(schedule: Schedule, steps: int) -> list[int]:
    """Stable Diffusion's timesteps: multiples of an integer stride, from 0 or 1 up; they stop short of the last one."""
    stride = schedule.num_train_timesteps // steps
    last = schedule.num_train_timesteps - 1
    return [min(i * stride + schedule.steps_offset, last) for i in reversed(range(steps))]


def _falling(timesteps: list[int], count: int) -> list[int]:
    """The timesteps, moved apart where several noise levels have the same nearest one. count: of all timesteps."""
    found: list[int] = []
    for i, t in enumerate(timesteps):
        highest = count - 1 if i == 0 else found[-1] - 1
        found.append(min(max(t, len(timesteps) - 1 - i), highest))
    return found
