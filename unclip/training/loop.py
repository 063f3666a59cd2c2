"""The one training loop: any Task, over accelerate, resumable to the same result.

Everything random in a step is drawn from a generator seeded with (seed, step), and the data of a step are a function
of its number, so that weights, moments and the step number are the whole state of a run.
"""

import io
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from unclip.errors import RecipeError
from unclip.system.device import has_native_bfloat16
from unclip.system.files import write_atomic
from unclip.training.budget import Budget
from unclip.training.data.loader import batches
from unclip.training.monitor import Curve, Meter
from unclip.training.recipe import Fit
from unclip.training.state import State
from unclip.training.tasks.base import Task


def learning_rate(fit: Fit, step: int, done: float) -> float:
    """Linear warm-up, constant, linear decay to 0 over the last `fit.decay` of the run.

    The constant part can be prolonged: a run that is resumed with a larger budget goes on where it left off.
    """
    warm = min(1.0, (step + 1) / fit.warmup) if fit.warmup else 1.0
    cool = min(1.0, (1.0 - done) / fit.decay) if fit.decay else 1.0
    return fit.lr * warm * cool


def fit(
    task: Task,
    dataset: Dataset,
    settings: Fit,
    folder: Path,
    *,
    seed: int,
    budget: Budget,
    device: torch.device,
    resume: bool = False,
    quiet: bool = False,
    meaning: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train `task.network` and return it with its averaged (EMA) weights.

    `folder` receives the state of the run (unclip.training.state), loss.csv, samples/ and TensorBoard events where that
    is installed. An interrupt saves the state before it ends the run. meaning: what the weights mean besides their
    shapes (`parts.meaning`); a state of another meaning is not resumed. Raises RecipeError when the loss is no number
    any more, CheckpointError when there is nothing to resume or it does not fit.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    mixed = "bf16" if has_native_bfloat16(device) else "no"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    if accelerator.num_processes > 1:
        raise RecipeError("training runs in one process: start it with `unclip train`, not with `accelerate launch`")
    task.network.to(accelerator.device, memory_format=torch.channels_last).train()
    state = State(task.network, settings, meaning or {})
    if resume:
        state.load(folder)
    progress, adam = state.progress, state.adam
    network, optimizer = accelerator.prepare(task.network, adam)
    if settings.compile:
        network = torch.compile(network)

    def sample() -> None:
        with state.averaged():
            task.network.eval()
            picture = task.grid()
            task.network.train()
        if picture is not None:
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG")
            write_atomic(folder / "samples" / f"{progress.step:07d}.png", buffer.getvalue())

    saved = sampled = time.monotonic()
    started = saved - progress.seconds
    with (
        stop_on_signal() as stopped,
        Curve(folder, progress) as curve,
        Meter(budget, progress, settings.batch_size, quiet) as meter,
        closing(batches(dataset, settings.batch_size, progress.step, settings.workers)) as data,
    ):
        while budget.done(progress) < 1.0 and not stopped:
            images, captions = next(data)
            images = images.to(accelerator.device, memory_format=torch.channels_last)  # b 3 h w, uint8
            generator = torch.Generator().manual_seed(seed * 2**32 + progress.step)
            torch.manual_seed(generator.initial_seed())  # for dropout, which takes no generator
            lr = learning_rate(settings, progress.step, budget.done(progress))
            for group in adam.param_groups:
                group["lr"] = lr
            with accelerator.autocast():
                loss, figures = task.loss(network, images.float() / 127.5 - 1, captions, generator)
            accelerator.backward(loss)
            norm = float(accelerator.clip_grad_norm_(state.parameters.values(), settings.clip_norm))
            value = float(loss.detach())
            if not (math.isfinite(value) and math.isfinite(norm)):  # before the step: the weights are still sound
                raise RecipeError(
                    f"step {progress.step + 1} has a loss of {value} and a gradient of norm {norm}: "
                    "lower lr in the recipe, then --resume"
                )
            optimizer.step()
            optimizer.zero_grad()
            progress.step += 1
            state.average(settings.ema)
            progress.seconds = time.monotonic() - started
            figures = {name: float(figure) for name, figure in figures.items()}
            curve.write(progress, settings.batch_size, loss=value, lr=lr, grad_norm=norm, **figures)
            meter.advance(progress, loss=value, **figures)
            now = time.monotonic()
            if now - saved > 60 * settings.save_minutes:
                curve.flush()
                state.save(folder)
                saved = now
            if now - sampled > 60 * settings.sample_minutes:
                sample()
                sampled = now
        curve.flush()
        state.save(folder)
        state.save_portable(folder)
        if stopped:
            raise KeyboardInterrupt
    sample()
    state.put(state.ema)
    return task.network.eval()


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into an entry of the list, so that a step is never left half done."""
    caught: list[int] = []
    previous = {}

    def remember(number: int, _frame: Any) -> None:
        caught.append(number)
        signal.signal(number, previous[number])  # a second one stops at once

    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
