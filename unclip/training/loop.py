"""The training loop for any Task. A resumed run gives the same result as an uninterrupted one.

All random numbers of a step come from a generator seeded with (seed, step), and the data of a step are a function of
its number. So weights, optimiser moments and the step number are the whole state of a run.
"""

import contextlib
import io
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import Dataset

from unclip.errors import DataError, RecipeError, TrainingError, UnclipError, WriteError, is_out_of_memory
from unclip.system.device import has_native_bfloat16
from unclip.system.files import remove_temporaries, write_atomic
from unclip.system.interrupts import StopOnInterrupt
from unclip.training.budget import Budget
from unclip.training.compatibility import weight_settings
from unclip.training.data.decode import Sample
from unclip.training.data.loader import batches
from unclip.training.monitor import LossCurve, ProgressBar, SkippedFiles, print_note
from unclip.training.recipe import Fit
from unclip.training.state import FILE, State
from unclip.training.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Session:
    """One session of a run.

    title: the stage, for the progress bar and the plot.
    folder: receives the state of the run (`training.state`), loss.csv, loss.png, samples/ and, if TensorBoard is
        installed, its events.
    budget: the length of the whole run, earlier sessions included.
    resume: continue from the state in `folder`; otherwise start from the task's weights.
    skip_bad: pass over images that cannot be read.
    quiet: show no progress bar and no notes.
    settings: further settings that decide what the weights mean, such as the model that is fine-tuned.
    dtype: precision of the activations; None is bfloat16 where `device` computes it in hardware, else float32.
    """

    title: str
    folder: Path
    seed: int
    budget: Budget
    device: torch.device
    resume: bool = False
    skip_bad: bool = False
    quiet: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None


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

    SIGINT, SIGTERM and SIGHUP end the run with KeyboardInterrupt. The state is saved before that and before any error,
    unless the error came in the middle of the optimiser's step, or the disk is full. Raises RecipeError if the loss
    becomes infinite or not a number, DataError for an image that cannot be read, TrainingError if the memory is used
    up, OSError if a file cannot be written, and CheckpointError if there is no state to resume or it does not fit the
    recipe.
    """
    folder, budget = session.folder, session.budget
    accelerator = _new_accelerator(session.device, session.dtype)
    task.network.to(accelerator.device, memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
    meaning = {**weight_settings(task.networks(), task.predicts), **session.settings}
    state = State(task.network, settings, meaning)
    if session.resume:
        note = state.load(folder)
        if note is not None and not session.quiet:
            print_note(note)
    remove_temporaries(folder)
    progress = state.progress
    network: Any
    network, optimizer = accelerator.prepare(task.network, state.adam)
    if settings.compile:
        network = torch.compile(network)

    skipped = SkippedFiles(session.quiet)
    on_skip = skipped.add if session.skip_bad else None
    last_saved = progress.step
    saved = sampled = time.monotonic()
    started = saved - progress.seconds
    with (
        StopOnInterrupt() as interrupt,
        LossCurve(folder, session.title, progress) as curve,
        ProgressBar(session.title, budget, progress, settings.batch_size, session.quiet) as bar,
        closing(batches(dataset, settings.batch_size, progress.step, settings.workers, on_skip)) as data,
    ):
        try:
            while budget.fraction_done(progress) < 1.0 and not interrupt.requested:
                images, captions, *layouts = next(data)
                images = images.to(accelerator.device, memory_format=torch.channels_last)  # b 3 h w, uint8
                generator = torch.Generator().manual_seed(session.seed * 2**32 + progress.step)
                torch.manual_seed(generator.initial_seed())  # for dropout, which takes no generator
                lr = learning_rate(settings, progress.step, budget.fraction_done(progress))
                for group in state.adam.param_groups:
                    group["lr"] = lr
                with accelerator.autocast():
                    loss, figures = task.loss(network, images.float() / 127.5 - 1, captions, generator, *layouts)
                accelerator.backward(loss)
                parameters = list(state.parameters.values())
                norm = torch.as_tensor(accelerator.clip_grad_norm_(parameters, settings.clip_norm)).item()
                value = float(loss.detach())
                _check_finite(progress.step + 1, value, norm)  # before the step, while the weights are finite
                with state.step(settings.ema):
                    optimizer.step()
                optimizer.zero_grad()
                progress.seconds = time.monotonic() - started
                figures = {name: float(figure) for name, figure in figures.items()}
                curve.write(progress, settings.batch_size, loss=value, lr=lr, grad_norm=norm, **figures)
                bar.update(progress, loss=value, **figures)
                now = time.monotonic()
                if now - saved > 60 * settings.save_minutes:
                    curve.flush()
                    state.save(folder)
                    saved, last_saved = now, progress.step
                    curve.save_plot()
                if now - sampled > 60 * settings.sample_minutes:
                    save_samples(task, state, folder)
                    sampled = now
            curve.flush()
            state.save(folder)
            last_saved = progress.step
            state.save_portable(folder)
            curve.save_plot()
        except Exception as error:
            optimizer.zero_grad()  # frees memory
            last_saved = _save_after_error(state, curve, folder, last_saved)
            explained = _explain(error, progress.step + 1, last_saved)
            if explained is error:
                raise
            raise explained from error
        if interrupt.requested:
            raise KeyboardInterrupt
    skipped.report()
    save_samples(task, state, folder)
    state.set_weights(state.ema)
    return task.network.eval()


def _new_accelerator(device: torch.device, dtype: torch.dtype | None) -> Accelerator:
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # accelerate takes the current one
    mixed = "bf16" if (has_native_bfloat16(device) if dtype is None else dtype == torch.bfloat16) else "no"
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run in this process had another precision
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    if accelerator.num_processes > 1:
        raise RecipeError("training runs in one process: start it with `unclip train`, not with `accelerate launch`")
    return accelerator


def _check_finite(step: int, loss: float, norm: float) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise RecipeError(f"step {step} has a loss of {loss} and a gradient of norm {norm}: lower lr in the recipe")


def _save_after_error(state: State, curve: LossCurve, folder: Path, last_saved: int) -> int:
    """Save the state if it is whole and not saved yet. Returns the step of the saved state; 0 if there is none."""
    if not state.is_whole or state.progress.step <= last_saved:
        return last_saved
    # Errors are suppressed: the first one, which ended the run, is the one to report.
    with contextlib.suppress(Exception):
        curve.flush()
    try:
        state.save(folder)
        last_saved = state.progress.step
    except Exception:
        if (folder / FILE).is_file():  # an older state; a resumed run would not use the portable one
            return last_saved
    with contextlib.suppress(Exception):  # a sixth of the size: it may find room where the state did not
        state.save_portable(folder)
        last_saved = state.progress.step
    with contextlib.suppress(Exception):
        curve.save_plot()
    return last_saved


def _explain(error: Exception, step: int, last_saved: int) -> Exception:
    """An error that ended a run, with the step from which the run can be resumed."""
    saved = f"the state of step {last_saved} is saved for --resume" if last_saved else "no step has been saved"
    if is_out_of_memory(error):
        return TrainingError(f"step {step} ran out of memory: lower batch_size in the recipe; {saved}")
    if isinstance(error, DataError):
        return DataError(f"{error}; mend the file, or add --skip-bad to pass over such files; {saved}")
    if isinstance(error, UnclipError):
        return type(error)(f"{error}; {saved}")
    if isinstance(error, OSError) and error.filename is not None:
        return WriteError(f"cannot write {str(error.filename)!r} ({error.strerror}): make room, or mend that; {saved}")
    error.add_note(saved)
    return error


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
