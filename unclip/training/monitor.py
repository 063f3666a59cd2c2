"""The loss curve, the progress bars and the notes of a training run."""

import copy
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from unclip.system.files import named, write_atomic
from unclip.system.processes import ALONE, Processes
from unclip.training.budget import Budget, Progress
from unclip.training.loss_plot import plot_loss


def print_note(text: str) -> None:
    """Print a note on standard error, above a progress bar if there is one."""
    tqdm.write(f"unclip: note: {text}", file=sys.stderr)


def track(items: Sequence[Any], description: str) -> Iterable[Any]:
    """The items, with a progress bar that counts them."""
    return tqdm(items, desc=description, leave=False, dynamic_ncols=True)


class FaultList:
    """Prints the first of the files that cannot be used, and how many there are, unless `quiet`.

    skip_bad: whether the run passes over them.
    """

    SHOWN = 20

    def __init__(self, quiet: bool, skip_bad: bool):
        self.quiet, self.skip_bad = quiet, skip_bad
        self.first: list[str] = []
        self.count = 0

    def add(self, line: str) -> None:
        """Count a file. line: the file, and why it cannot be used."""
        self.count += 1
        if len(self.first) < self.SHOWN:
            self.first.append(line)

    def report(self) -> None:
        """Print the list, if it has anything to add to the error that names its first line."""
        if self.quiet or self.count < (1 if self.skip_bad else 2):
            return
        for line in self.first:
            print_note(f"passed over: {line}" if self.skip_bad else line)
        if self.count > self.SHOWN:
            print_note(f"{self.count:,} bad files; --check lists all of them")
        elif self.skip_bad:
            print_note(f"bad files passed over: {self.count}")


class SkippedFiles:
    """Counts the images that break only when they are decoded during a run, and prints the first ones, unless `quiet`.

    Each file is counted once, however often the run comes to it.
    """

    SHOWN = 20
    REMEMBERED = 100_000  # the count stops there, so that memory stays bounded

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self._lines: set[str] = set()

    def add(self, line: str) -> None:
        """Count a file. line: the file, and why it cannot be used."""
        if line in self._lines or len(self._lines) == self.REMEMBERED:
            return
        self._lines.add(line)
        if not self.quiet and len(self._lines) <= self.SHOWN:
            print_note(f"passed over: {line}")

    def report(self, processes: Processes = ALONE) -> None:
        """Print how many files were passed over by all processes, if any."""
        found = processes.gather((len(self._lines), sorted(self._lines)[: self.SHOWN]))
        if self.quiet or not processes.is_main:
            return
        for line in [line for _, lines in found[1:] for line in lines][: self.SHOWN]:  # the others print nothing
            print_note(f"passed over: {line}")
        if count := sum(number for number, _ in found):
            more = " or more" if count >= self.REMEMBERED else ""
            print_note(f"files passed over during the run: {count:,}{more}")


class LossCurve:
    """The loss curve in loss.csv and loss.png, and in TensorBoard if that is installed.

    title: of the plot. A killed run may have written rows after its last saved state, and half a row. Rows beyond
    `progress` are dropped, so that each step occurs once.
    """

    def __init__(self, folder: Path, title: str, progress: Progress):
        self.folder, self.title = folder, title
        path = folder / "loss.csv"
        header, rows = read_rows(path, progress.step)
        kept = io.StringIO(newline="")
        csv.writer(kept).writerows([header, *rows] if rows else [])
        write_atomic(path, kept.getvalue().encode())
        self.file = path.open("a", newline="", encoding="utf-8")
        self.rows = csv.writer(self.file)
        self.empty = not rows
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=progress.step + 1)
        except ImportError:
            self.board = None

    def __enter__(self) -> "LossCurve":
        return self

    def write(self, progress: Progress, batch_size: int, **figures: float) -> None:
        """Add the row of the step that has just ended."""
        try:
            if self.empty:
                self.rows.writerow(["step", "images", "seconds", *figures])
                self.empty = False
            row = [progress.step, progress.step * batch_size, f"{progress.seconds:.1f}"]
            self.rows.writerow(row + [f"{value:.6g}" for value in figures.values()])
        except OSError as error:  # of the disk, when the buffer is full
            raise named(error, self.folder / "loss.csv") from error
        if progress.step % 50 == 0:
            self.flush()
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(name, value, progress.step)

    def flush(self) -> None:
        """Write all rows to the file: a saved state must not be ahead of its curve."""
        try:
            self.file.flush()
        except OSError as error:
            raise named(error, self.folder / "loss.csv") from error

    def save_plot(self) -> None:
        """Write all rows, and loss.png, if there are any."""
        self.flush()
        with (self.folder / "loss.csv").open(newline="", encoding="utf-8") as file:
            points = [(float(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
        if points:
            steps, losses = np.array(points).T
            buffer = io.BytesIO()
            plot_loss(self.title, steps, losses).save(buffer, format="PNG")
            write_atomic(self.folder / "loss.png", buffer.getvalue())

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            self.file.close()
        except OSError as error:  # the disk is full: do not hide the error that ended the run
            if kind is None:
                raise named(error, self.folder / "loss.csv") from error
        if self.board:
            self.board.close()


def read_rows(path: Path, last: int) -> tuple[list[str], list[list[str]]]:
    """The header and the complete rows of a curve up to step `last`, each step once. Empty lists without a curve."""
    if last == 0 or not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    complete = {int(row[0]): row for row in rows if len(row) == len(header) and row[0].isdecimal()}
    return header, [complete[step] for step in sorted(complete) if step <= last]


class NoCurve:
    """In the place of the curve in all processes but the main one."""

    def __enter__(self) -> "NoCurve":
        return self

    def write(self, progress: Progress, batch_size: int, **figures: float) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Write nothing."""

    def save_plot(self) -> None:
        """Write nothing."""

    def __exit__(self, *_: object) -> None:
        pass


class ProgressBar:
    """A progress bar over steps, or over seconds if the budget is in minutes, with images/s and the time left.

    title: the stage, which begins the line.
    """

    def __init__(self, title: str, budget: Budget, progress: Progress, batch_size: int, quiet: bool):
        self.budget, self.batch_size = budget, batch_size
        self.first = self.now = copy.copy(progress)
        self.is_first_step = True
        if budget.minutes is None:
            total, initial, unit = budget.steps, progress.step, "{n}/{total} steps"
        else:
            total, initial, unit = 60 * budget.minutes, progress.seconds, "{n:.0f}/{total:.0f} s"
        self.total = total
        self.bar = tqdm(
            desc=title,
            total=total,
            initial=min(initial, total),  # pyright: ignore[reportArgumentType] (tqdm takes floats)
            bar_format="{l_bar}{bar}| " + unit + "{postfix}",
            disable=quiet,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def update(self, progress: Progress, **figures: float) -> None:
        """Display the progress, the speed and the latest figures."""
        self.now = copy.copy(progress)
        self.bar.set_postfix_str(
            f"{self.speed:.1f} images/s, ETA {self.left / 60:.0f} min"
            + "".join(f", {name} {value:.4g}" for name, value in figures.items()),
            refresh=False,
        )
        reached = progress.step if self.budget.minutes is None else progress.seconds
        self.bar.update(min(reached, self.total) - self.bar.n)
        if self.is_first_step:  # it may compile the network, and would distort the speed
            self.first, self.is_first_step = self.now, False

    @property
    def speed(self) -> float:
        """Images per second in this session, without its first step; 0 until there are two steps."""
        steps, seconds = self.now.step - self.first.step, self.now.seconds - self.first.seconds
        return steps * self.batch_size / max(seconds, 1e-9)

    @property
    def left(self) -> float:
        """Seconds until the budget is used up, at this session's speed; infinite while the speed is unknown."""
        if self.budget.minutes is not None:
            return max(60 * self.budget.minutes - self.now.seconds, 0.0)
        images = max(self.budget.steps - self.now.step, 0) * self.batch_size
        return images / self.speed if self.speed else float("inf")

    def __exit__(self, *_: object) -> None:
        self.bar.close()
