"""The training loop for any Task. A resumed run gives the same result as an uninterrupted one.

All random numbers of a step come from a generator seeded with (seed, step), and the data of a step are a function of
its number. So weights, optimiser moments and the step number are the whole state of a run.
"""

import io
import math
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from unclip.errors import RecipeError
from unclip.system.device import has_native_bfloat16
from unclip.system.files import write_atomic
from unclip.system.interrupts import StopOnInterrupt
from unclip.training.budget import Budget
from unclip.training.compatibility import weight_settings
from unclip.training.data.decode import Sample
from unclip.training.data.loader import batches
from unclip.training.monitor import LossCurve, ProgressBar
from unclip.training.recipe import Fit
from unclip.training.state import State
from unclip.training.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session of a run.

    folder: receives the state of the run (`training.state`), loss.csv, samples/ and, if TensorBoard is installed, its
        events.
    budget: the length of the whole run, earlier sessions included.
    resume: continue from the state in `folder`; otherwise start from the task's weights.
    quiet: show no progress bar.
    """

    folder: Path
    seed: int
    budget: Budget
    device: torch.device
    resume: bool = False
    quiet: bool = False


def learning_rate(fit: Fit, step: int, done: float) -> float:
    """Linear warm-up, then a constant rate, then linear decay to 0 over the last fraction `fit.decay` of the run.

    done: the fraction of the run that is done, 0 .. 1. A run that is resumed with a larger budget prolongs the
    constant part.
    """
    warm = min(1.0, (step + 1) / fit.warmup) if fit.warmup else 1.0
    cool = min(1.0, (1.0 - done) / fit.decay) if fit.decay else 1.0
    return fit.lr * warm * cool


def fit(task: Task, dataset: Dataset[Sample], settings: Fit, session: Session) -> nn.Module:
    """Train `task.network`, and return it with its averaged (EMA) weights.

    SIGINT and SIGTERM end the run with KeyboardInterrupt, after the state has been saved. Raises RecipeError if the
    loss becomes infinite or not a number, CheckpointError if there is no state to resume or it does not fit the recipe.
    """
    folder, budget, device = session.folder, session.budget, session.device
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    mixed = "bf16" if has_native_bfloat16(device) else "no"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    if accelerator.num_processes > 1:
        raise RecipeError("training runs in one process: start it with `unclip train`, not with `accelerate launch`")
    task.network.to(accelerator.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    state = State(task.network, settings, weight_settings(task.networks(), task.predicts))
    if session.resume:
        state.load(folder)
    progress, adam = state.progress, state.adam
    network: Any
    network, optimizer = accelerator.prepare(task.network, adam)
    if settings.compile:
        network = torch.compile(network)

    saved = sampled = time.monotonic()
    started = saved - progress.seconds
    with (
        StopOnInterrupt() as interrupt,
        LossCurve(folder, progress) as curve,
        ProgressBar(budget, progress, settings.batch_size, session.quiet) as bar,
        closing(batches(dataset, settings.batch_size, progress.step, settings.workers)) as data,
    ):
        while budget.fraction_done(progress) < 1.0 and not interrupt.requested:
            images, captions = next(data)
            images = images.to(accelerator.device, memory_format=torch.channels_last)  # b 3 h w, uint8
            generator = torch.Generator().manual_seed(session.seed * 2**32 + progress.step)
            torch.manual_seed(generator.initial_seed())  # for dropout, which takes no generator
            lr = learning_rate(settings, progress.step, budget.fraction_done(progress))
            for group in adam.param_groups:
                group["lr"] = lr
            with accelerator.autocast():
                loss, figures = task.loss(network, images.float() / 127.5 - 1, captions, generator)
            accelerator.backward(loss)
            norm = torch.as_tensor(
                accelerator.clip_grad_norm_(list(state.parameters.values()), settings.clip_norm)
            ).item()
            value = float(loss.detach())
            if not (math.isfinite(value) and math.isfinite(norm)):  # before the step, while the weights are finite
                raise RecipeError(
                    f"step {progress.step + 1} has a loss of {value} and a gradient of norm {norm}: "
                    "lower lr in the recipe, then --resume"
                )
            optimizer.step()
            optimizer.zero_grad()
            progress.step += 1
            state.update_average(settings.ema)
            progress.seconds = time.monotonic() - started
            figures = {name: float(figure) for name, figure in figures.items()}
            curve.write(progress, settings.batch_size, loss=value, lr=lr, grad_norm=norm, **figures)
            bar.update(progress, loss=value, **figures)
            now = time.monotonic()
            if now - saved > 60 * settings.save_minutes:
                curve.flush()
                state.save(folder)
                saved = now
            if now - sampled > 60 * settings.sample_minutes:
                save_samples(task, state, folder)
                sampled = now
        curve.flush()
        state.save(folder)
        state.save_portable(folder)
        if interrupt.requested:
            raise KeyboardInterrupt
    save_samples(task, state, folder)
    state.set_weights(state.ema)
    return task.network.eval()


def save_samples(task: Task, state: State, folder: Path) -> None:
    """Write a contact sheet of samples from the averaged weights, for a task that has one."""
    with state.averaged_weights():
        task.network.eval()
        image = task.sample_grid()
        task.network.train()
    if image is not None:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        write_atomic(folder / "samples" / f"{state.progress.step:07d}.png", buffer.getvalue())
