"""The one training loop: any Task, over accelerate, resumable to the same result.

Everything random in a step is drawn from a generator seeded with (seed, step), and the data of a step are a function
of its number, so that weights, moments and the step number are the whole state of a run.
"""

import csv
import io
import json
import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from unclip.device import has_native_bfloat16
from unclip.errors import CheckpointError, RecipeError
from unclip.files import write_atomic
from unclip.training.data import batches
from unclip.training.recipe import Fit


class Task(Protocol):
    """What a stage trains: a network, a loss, and a picture that shows how far it has come."""

    network: nn.Module
    size: int  # of the pictures it wants

    def loss(
        self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `b 3 h w` in [-1, 1] and captions -> the loss, and figures for the curve.

        `network` is `self.network` as wrapped for speed; everything random comes from `generator` (on the CPU).
        """

    def grid(self) -> Image.Image | None:
        """A picture of what `self.network` does with its present weights, or None."""

    def networks(self) -> dict[str, nn.Module]:
        """The components that the checkpoint keeps, by the names of their folders."""


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """How long to train in all, resumed parts included: a number of steps, or minutes if they are given."""

    steps: int
    minutes: float | None = None

    def done(self, progress: Progress) -> float:
        """The share of the run that lies behind, 0 to 1."""
        if self.minutes is not None:
            return min(progress.seconds / (60 * self.minutes), 1.0)
        return min(progress.step / self.steps, 1.0)


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
) -> nn.Module:
    """Train `task.network` and return it with its averaged (EMA) weights.

    `folder` receives state.safetensors (weights, EMA, moments and the step, replaced atomically), loss.csv, samples/
    and TensorBoard events where that is installed. An interrupt saves the state before it ends the run.
    """
    mixed = "bf16" if has_native_bfloat16(device) else "no"
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=mixed)
    task.network.to(accelerator.device, memory_format=torch.channels_last).train()
    parameters = {name: p for name, p in task.network.named_parameters() if p.requires_grad}
    decayed = [p for p in parameters.values() if p.ndim > 1]
    plain = [p for p in parameters.values() if p.ndim <= 1]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(
        groups, lr=settings.lr, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay, fused=True
    )
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    state_file = folder / "state.safetensors"
    progress = load_state(state_file, parameters, ema, adam) if resume else Progress()
    network, optimizer = accelerator.prepare(task.network, adam)
    if settings.compile:
        network = torch.compile(network)

    def save() -> None:
        save_state(state_file, parameters, ema, adam, progress)

    def sample() -> None:
        with averaged(parameters, ema):
            picture = task.grid()
        if picture is not None:
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG")
            write_atomic(folder / "samples" / f"{progress.step:07d}.png", buffer.getvalue())

    folder.mkdir(parents=True, exist_ok=True)
    data = batches(dataset, settings.batch_size, progress.step, settings.workers)
    saved = sampled = started = time.monotonic() - progress.seconds
    with (
        stop_on_signal() as stopped,
        Curve(folder, fresh=not resume) as curve,
        bar(budget, progress, quiet) as shown,
    ):
        while budget.done(progress) < 1.0 and not stopped:
            images, captions = next(data)
            images = images.to(accelerator.device, memory_format=torch.channels_last)  # b 3 h w, uint8
            generator = torch.Generator().manual_seed(seed * 2**32 + progress.step)
            lr = learning_rate(settings, progress.step, budget.done(progress))
            for group in adam.param_groups:
                group["lr"] = lr
            with accelerator.autocast():
                loss, figures = task.loss(network, images.float() / 127.5 - 1, captions, generator)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(parameters.values(), settings.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            progress.step += 1
            # The average must forget the start of a short run: (1 + step) / (10 + step), as is customary.
            momentum = min(settings.ema, (1 + progress.step) / (10 + progress.step))
            torch._foreach_lerp_(list(ema.values()), [p.detach() for p in parameters.values()], 1 - momentum)
            progress.seconds = time.monotonic() - started
            value = float(loss.detach())
            if not math.isfinite(value):
                raise RecipeError(f"the loss is {value} at step {progress.step}: lower lr in the recipe, then --resume")
            figures = {name: float(figure) for name, figure in figures.items()}
            curve.write(progress, settings.batch_size, loss=value, lr=lr, grad_norm=float(norm), **figures)
            advance(shown, budget, progress, settings.batch_size, loss=value, **figures)
            now = time.monotonic()
            if now - saved > 60 * settings.save_minutes:
                save()
                saved = now
            if now - sampled > 60 * settings.sample_minutes:
                sample()
                sampled = now
    save()
    if stopped:
        raise KeyboardInterrupt
    sample()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(ema[name])
    return task.network.eval()


@contextmanager
def averaged(parameters: Mapping[str, nn.Parameter], ema: Mapping[str, Tensor]) -> Iterator[None]:
    """Run a block with the averaged weights in place of the trained ones."""
    kept = {name: p.detach().clone() for name, p in parameters.items()}
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])
        yield
        for name, p in parameters.items():
            p.copy_(kept[name])


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """Turn the first SIGINT or SIGTERM into an entry of the list, so that a step is never left half done."""
    caught: list[int] = []
    previous = {}

    def remember(number: int, _frame: Any) -> None:
        caught.append(number)
        signal.signal(number, previous[number])  # a second one stops at once

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, remember)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def save_state(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    ema: Mapping[str, Tensor],
    adam: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write the whole state of a run into one file, atomically; an interrupted write leaves the old one."""
    tensors = {}
    for name, parameter in parameters.items():
        tensors[f"weights.{name}"] = parameter.detach()
        tensors[f"ema.{name}"] = ema[name]
        for key, value in adam.state.get(parameter, {}).items():
            tensors[f"{key}.{name}"] = torch.as_tensor(value)
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    write_atomic(path, serialize(tensors, metadata={"progress": json.dumps(vars(progress))}))


def load_state(
    path: Path, parameters: Mapping[str, nn.Parameter], ema: Mapping[str, Tensor], adam: torch.optim.Optimizer
) -> Progress:
    """Read what `save_state` wrote, or a portable state (without moments: they start anew)."""
    if not path.is_file():
        raise CheckpointError(f"nothing to resume at {path}; leave out --resume to start, or copy a state there")
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        for name, parameter in parameters.items():
            if f"weights.{name}" not in keys or tuple(file.get_slice(f"weights.{name}").get_shape()) != parameter.shape:
                raise CheckpointError(f"{path} does not fit this recipe: {name} is missing or of another size")
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weights.{name}"))
                ema[name].copy_(file.get_tensor(f"ema.{name}"))
            if f"exp_avg.{name}" in keys:
                adam.state[parameter] = {
                    key: file.get_tensor(f"{key}.{name}").to(parameter.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        return Progress(**json.loads(file.metadata()["progress"]))


class Curve:
    """The loss curve: always loss.csv, and TensorBoard events where it is installed."""

    def __init__(self, folder: Path, fresh: bool):
        self.path = folder / "loss.csv"
        self.file = self.path.open("w" if fresh or not self.path.exists() else "a", newline="", encoding="utf-8")
        self.rows = csv.writer(self.file)
        self.empty = self.file.tell() == 0
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))
        except ImportError:
            self.board = None

    def __enter__(self) -> "Curve":
        return self

    def write(self, progress: Progress, batch_size: int, **figures: float) -> None:
        if self.empty:
            self.rows.writerow(["step", "images", "seconds", *figures])
            self.empty = False
        row = [progress.step, progress.step * batch_size, f"{progress.seconds:.1f}"]
        self.rows.writerow(row + [f"{value:.6g}" for value in figures.values()])
        if progress.step % 50 == 0:
            self.file.flush()
        for name, value in figures.items() if self.board else ():
            self.board.add_scalar(name, value, progress.step)

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.board:
            self.board.close()


def bar(budget: Budget, progress: Progress, quiet: bool) -> tqdm:
    """A bar over steps, or over seconds where the budget is a time."""
    if budget.minutes is not None:
        form = "{l_bar}{bar}| {elapsed} of {total:.0f} s{postfix}"
        return tqdm(total=60 * budget.minutes, initial=progress.seconds, bar_format=form, disable=quiet)
    return tqdm(total=budget.steps, initial=progress.step, unit="step", disable=quiet)


def advance(shown: tqdm, budget: Budget, progress: Progress, batch_size: int, **figures: float) -> None:
    shown.update((progress.seconds if budget.minutes is not None else progress.step) - shown.n)
    speed = progress.step * batch_size / max(progress.seconds, 1e-9)
    left = (1 / max(budget.done(progress), 1e-9) - 1) * progress.seconds
    text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    shown.set_postfix_str(f"{speed:.1f} images/s, ETA {left / 60:.0f} min, {text}", refresh=False)
