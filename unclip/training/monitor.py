"""The loss curve and the progress bar of a training run."""

import copy
import csv
import io
from pathlib import Path

from tqdm import tqdm

from unclip.system.files import write_atomic
from unclip.training.budget import Budget, Progress


class LossCurve:
    """The loss curve in loss.csv, and in TensorBoard if that is installed.

    A killed run may have written rows after its last saved state, and half a row. Rows beyond `progress` are dropped,
    so that each step occurs once.
    """

    def __init__(self, folder: Path, progress: Progress):
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
        if self.empty:
            self.rows.writerow(["step", "images", "seconds", *figures])
            self.empty = False
        row = [progress.step, progress.step * batch_size, f"{progress.seconds:.1f}"]
        self.rows.writerow(row + [f"{value:.6g}" for value in figures.values()])
        if progress.step % 50 == 0:
            self.flush()
        if self.board:
            for name, value in figures.items():
                self.board.add_scalar(name, value, progress.step)

    def flush(self) -> None:
        """Write all rows to the file: a saved state must not be ahead of its curve."""
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.close()
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


class ProgressBar:
    """A progress bar over steps, or over seconds if the budget is in minutes, with images/s and the time left."""

    def __init__(self, budget: Budget, progress: Progress, batch_size: int, quiet: bool):
        self.budget, self.batch_size = budget, batch_size
        self.first = self.now = copy.copy(progress)
        self.is_first_step = True
        if budget.minutes is None:
            total, initial, unit = budget.steps, progress.step, "{n}/{total} steps"
        else:
            total, initial, unit = 60 * budget.minutes, progress.seconds, "{n:.0f}/{total:.0f} s"
        self.total = total
        self.bar = tqdm(
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
