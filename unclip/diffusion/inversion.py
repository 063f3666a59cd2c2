"""DDIM inversion: the noise from which an image is sampled. It runs the loop of `samplers.py` up the timesteps.

With the image embedding that conditions the decoder, that noise is the bipartite latent (z_i, x_T) of an image: Ramesh
et al. 2022 (arXiv:2204.06125), section 3.
"""

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction
from unclip.diffusion.noise import Generators
from unclip.diffusion.samplers import Progress, Solver, check_steps, ddim_step, ddim_timesteps, denoise_loop
from unclip.diffusion.schedule import Schedule

SKIP = 1
"""Number of the noisiest timesteps left out. There, x0 = (x - s eps) / sqrt(alpha bar) divides by nearly 0: on the
cosine schedule, by 1/20,291 at t = 999 and by 1/160 at t = 995. Dhariwal & Nichol 2021 (arXiv:2105.05233) inverted 249
of 250 steps."""
ROUNDS = 1
"""Default number of fixed-point rounds a step (see `look_ahead`)."""


def invert(
    denoise: Denoise,
    x0: Tensor,
    schedule: Schedule,
    steps: int,
    progress: Progress | None = None,
    rounds: int = ROUNDS,
    spacing: str = "uniform",
) -> Tensor:
    """The noise `b ...` from which `sample` with Sampling("ddim", steps, skip=SKIP) returns x0 (`b ...`), in float32.

    spacing: of the sampling's timesteps.
    denoise: the denoiser of the sampling, without guidance, which would amplify the error of the inversion, and without
    clamping, which cannot be inverted. More steps and more rounds reduce the error. Raises RequestError for fewer than
    2 steps.
    """
    check_steps(steps, schedule, least=1 + SKIP)
    timesteps = ddim_timesteps(schedule, steps, spacing)[SKIP:][::-1]
    if progress is not None:  # the network runs before the loop begins
        progress(0, len(timesteps))
    x = first_noise(denoise, x0.float(), timesteps[0], schedule, rounds)

    def report(done: int, total: int) -> None:
        if progress is not None and done > 0:
            progress(done, total)

    def step(prediction: Prediction, x: Tensor, t: int, t_next: int, _: Generators) -> Tensor:
        return ddim_step(prediction, x, t, t_next, schedule)

    def return_x(x: Tensor, t: Tensor) -> Prediction:  # the last step: x itself is the result
        return Prediction(x)

    ahead = look_ahead(denoise, timesteps, schedule, rounds)
    return denoise_loop(ahead, x, lambda: Solver(schedule, timesteps, step), (), last=return_x, progress=report)


def first_noise(denoise: Denoise, x0: Tensor, t: int, schedule: Schedule, rounds: int) -> Tensor:
    """The x (`b ...`) at the cleanest timestep t for which the denoiser predicts x0.

    The error of each prediction is added to x. One round is best for a trained network: more rounds would put details
    into the noise that the network never generates.
    """
    signal = float(schedule.alphas_cumprod()[t]) ** 0.5
    x, times = signal * x0, torch.full((len(x0),), t, device=x0.device)
    for _ in range(max(1, rounds)):
        x = x + signal * (x0 - denoise(x, times).x0)
    return x


def look_ahead(denoise: Denoise, timesteps: list[int], schedule: Schedule, rounds: int) -> Denoise:
    """A denoiser that returns, at each of the rising timesteps, the x0 that `denoise` predicts at the next one.

    A step down from the next timestep uses that x0, so a step up must use it too to be its inverse. It is found by
    fixed-point iteration, starting from the x0 at this timestep (Pan et al. 2023, arXiv:2309.04907). Each round reduces
    the error by one order of the step size; 0 rounds is plain DDIM inversion.
    """
    following = dict(zip(timesteps[:-1], timesteps[1:], strict=True))

    def denoise_ahead(x: Tensor, t: Tensor) -> Prediction:
        now = int(t[0])
        prediction = denoise(x, t)
        for _ in range(rounds):
            x_next = ddim_step(prediction, x, now, following[now], schedule)
            prediction = denoise(x_next, torch.full_like(t, following[now]))
        return prediction

    return denoise_ahead
