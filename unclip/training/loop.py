"""The training loop for any Task. A resumed run gives the same result as an uninterrupted one.

All random numbers of a step come from a generator seeded with (seed, step), and the data of a step are a function of
its number. So weights, optimiser moments and the step number are the whole state of a run.
"""

import contextlib
import io
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unclip.errors import DataError, ProcessError, RecipeError, TrainingError, UnclipError, WriteError, is_out_of_memory
from unclip.system.files import remove_temporaries, write_atomic
from unclip.system.interrupts import StopOnInterrupt
from unclip.system.processes import Processes, is_lost
from unclip.training.accelerator import check_division, connect, find_sharding
from unclip.training.batch import Batch
from unclip.training.budget import Budget
from unclip.training.compatibility import weight_settings
from unclip.training.data.decode import Sample
from unclip.training.data.loader import batches
from unclip.training.dropout import WholeBatchDropout
from unclip.training.module import ParallelLoss
from unclip.training.monitor import LossCurve, NoCurve, ProgressBar, SkippedFiles, print_note
from unclip.training.precision import Precision
from unclip.training.recipe_tables import Fit
from unclip.training.sharding import gather_weights
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
    accumulation: parts of a batch that each process computes one after the other, with the memory of one.
    shard: divide the weights among the processes (`training.sharding`); a configuration of accelerate may also ask so.
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
    accumulation: int = 1
    shard: bool = False


def learning_rate(fit: Fit, step: int, done: float) -> float:
    """Linear warm-up, then a constant rate, then linear decay to 0 over the last fraction `fit.decay` of the run.

    done: the fraction of the run that is done, 0 .. 1. A run that is resumed with a larger budget prolongs the
    constant part.
    """
    warm = min(1.0, (step + 1) / fit.warmup) if fit.warmup else 1.0
    cool = min(1.0, (1.0 - done) / fit.decay) if fit.decay else 1.0
    return fit.lr * warm * cool


def fit(task: Task, dataset: Dataset[Sample], settings: Fit, session: Session) -> nn.Module:
    """Train `task.network`, and return it with its averaged (EMA) weights, in the main process.

    Of several processes (`Processes.current`), each computes an equal part of every batch. The main one writes all
    files; what ends one of them ends all.

    SIGINT, SIGTERM and SIGHUP end the run with KeyboardInterrupt. The state is saved before that and before any error,
    unless the error came in the middle of the optimiser's step, or the disk is full. Raises RecipeError if the loss
    becomes infinite or not a number, DataError for an image that cannot be read, TrainingError if the memory is used
    up, OSError if a file cannot be written, and CheckpointError if there is no state to resume or it does not fit the
    recipe.
    """
    folder, budget = session.folder, session.budget
    processes = connect(session.device)
    quiet = session.quiet or not processes.is_main
    check_division(settings.batch_size, processes, session.accumulation)
    precision = Precision(session.device, session.dtype)
    sharding = find_sharding(session.shard, processes)
    if sharding is not None and settings.optimizer == "adamw8bit":
        raise RecipeError('optimizer = "adamw8bit" cannot divide its moments: use adamw or muon with shards of weights')
    loss_of = ParallelLoss(task, session.device, processes, sharding, settings.compile)
    task.network.train()
    meaning = {**weight_settings(task.networks(), task.predicts), **session.settings}
    state = State(task.network, settings, meaning, processes.is_main)
    optimizer = state.adam
    if session.resume:
        with processes.shared_errors():
            note = state.load(folder)
        if note is not None and not quiet:
            print_note(note)
    if processes.is_main:
        remove_temporaries(folder)
    progress = state.progress
    if progress.scaler and precision.scaler.is_enabled():
        precision.scaler.load_state_dict(progress.scaler)

    divided = processes.count * session.accumulation > 1
    dropout = WholeBatchDropout(task.network) if divided else None

    skipped = SkippedFiles(session.quiet)
    on_skip = skipped.add if session.skip_bad else None
    last_saved = first_step = progress.step
    saved = sampled = time.monotonic()
    started = saved - progress.seconds
    with (
        StopOnInterrupt() as interrupt,
        LossCurve(folder, session.title, progress) if processes.is_main else NoCurve() as curve,
        ProgressBar(session.title, budget, progress, settings.batch_size, quiet) as bar,
        closing(batches(dataset, settings.batch_size, progress.step, settings.workers, on_skip, processes)) as data,
    ):
        try:
            while budget.fraction_done(progress) < 1.0 and not processes.any(interrupt.requested):
                with processes.shared_errors():
                    images, captions, *layouts = next(data)
                images = images.to(session.device, memory_format=torch.channels_last)  # b 3 h w, uint8
                generator = torch.Generator().manual_seed(session.seed * 2**32 + progress.step)
                batch = Batch(images.float() / 127.5 - 1, captions, generator, processes, *layouts)
                lr = learning_rate(settings, progress.step, budget.fraction_done(progress))
                for group in optimizer.param_groups:
                    group["lr"] = lr
                losses = []
                for part in batch.parts(session.accumulation):
                    torch.manual_seed(generator.initial_seed())  # for dropout, which takes no generator
                    if dropout is not None:
                        dropout.part = part
                    # The processes average their gradients after the last part, and in the first step, in which torch
                    # observes the network, after all.
                    averages = part.number == part.divisions - 1 or progress.step == first_step
                    with nullcontext() if averages else loss_of.without_averaging():
                        with precision.autocast():
                            loss, figures = loss_of(part)
                        precision.backward(loss / part.divisions)
                    losses.append({"loss": loss.detach(), **figures})
                loss_of.average_scalars()
                norm = precision.clip_gradients(optimizer, [*state.parameters.values()], settings.clip_norm)
                figures = _mean(losses, processes)
                value = figures.pop("loss")
                # Before the step, while the weights are finite.
                if not (math.isfinite(value) and (math.isfinite(norm) or precision.may_overflow())):
                    with processes.shared_errors():
                        raise _diverged(progress.step + 1, value, norm)
                state.step(lambda: precision.step(optimizer), settings.ema)
                optimizer.zero_grad()
                progress.scaler = precision.scaler.state_dict() or None
                now = time.monotonic()
                progress.seconds, save, sample = processes.from_main(
                    now - started,
                    now - saved > 60 * settings.save_minutes,
                    now - sampled > 60 * settings.sample_minutes,
                )
                curve.write(progress, settings.batch_size, loss=value, lr=lr, grad_norm=norm, **figures)
                bar.update(progress, loss=value, **figures)
                if save:
                    with processes.shared_errors():
                        curve.flush()
                        state.save(folder)
                        saved, last_saved = now, progress.step
                        curve.save_plot()
                if sample:
                    save_samples(task, state, loss_of, folder)
                    sampled = now
            with processes.shared_errors():
                curve.flush()
                state.save(folder)
                last_saved = progress.step
                state.save_portable(folder)
                curve.save_plot()
        except Exception as error:
            optimizer.zero_grad()  # frees memory
            is_shared = isinstance(error, UnclipError) and error.shared
            # Only all processes together can save shards of weights.
            if is_shared if state.is_sharded else processes.is_main:
                last_saved = _save_after_error(state, curve, folder, last_saved)
            if is_shared:  # the others stay until the main one has saved the state
                with contextlib.suppress(ProcessError):
                    processes.wait()
            saved_step = last_saved if processes.is_main else None
            explained = _explain(error, progress.step + 1, saved_step)
            if explained is error:
                raise
            if is_shared and isinstance(explained, UnclipError):
                explained.shared = True
            raise explained from error
        if processes.any(interrupt.requested):
            raise KeyboardInterrupt
    skipped.report(processes)
    save_samples(task, state, loss_of, folder)
    if state.is_sharded:
        gather_weights(task.network, state.ema, processes.is_main)
    elif state.ema:
        state.set_weights(state.ema)
    return task.network.eval()


def _mean(losses: Sequence[Mapping[str, Tensor]], processes: Processes) -> dict[str, float]:
    """The means of figures, by name, over the parts of a batch and the processes."""
    names = losses[0].keys()
    own = [sum(float(part[name]) for part in losses) / len(losses) for name in names]
    return {name: value / processes.count for name, value in zip(names, processes.sum(own), strict=True)}


def _diverged(step: int, loss: float, norm: float) -> RecipeError:
    return RecipeError(f"step {step} has a loss of {loss} and a gradient of norm {norm}: lower lr in the recipe")


def _save_after_error(state: State, curve: LossCurve | NoCurve, folder: Path, last_saved: int) -> int:
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


def _explain(error: Exception, step: int, last_saved: int | None) -> Exception:
    """An error that ended a run, with the step from which it can be resumed; None in a process that saves nothing."""
    saved = f"the state of step {last_saved} is saved for --resume" if last_saved else "no step has been saved"
    end = "" if last_saved is None else f"; {saved}"  # the main process reports it
    if is_lost(error):
        return ProcessError(f"another process of this run ended early{end}")
    if is_out_of_memory(error):
        return TrainingError(f"step {step} ran out of memory: lower batch_size in the recipe{end}")
    if isinstance(error, DataError):
        return DataError(f"{error}; mend the file, or add --skip-bad to pass over such files{end}")
    if isinstance(error, UnclipError):
        return type(error)(f"{error}{end}")
    if isinstance(error, OSError) and error.filename is not None:
        return WriteError(f"cannot write {str(error.filename)!r} ({error.strerror}): make room, or mend that{end}")
    error.add_note(saved)
    return error


def save_samples(task: Task, state: State, loss_of: ParallelLoss, folder: Path) -> None:
    """Write a contact sheet of samples from the averaged weights, for a task that has one. The main process does."""
    with state.averaged_weights(), loss_of.whole_weights(), loss_of.processes.shared_errors():
        if not state.is_main:
            return
        task.network.eval()
        image = task.sample_grid()
        task.network.train()
        if image is not None:
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            write_atomic(folder / "samples" / f"{state.progress.step:07d}.png", buffer.getvalue())
