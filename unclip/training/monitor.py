"""Where a run stands, when it ends, and how that is shown: the loss curve and the progress bar."""

import copy
import csv
import io
from pathlib import Path

from tqdm import tqdm

from unclip.system.files import write_atomic
from unclip.training.budget import Budget, Progress


class Curve:
    """The loss curve: always loss.csv, and TensorBoard events where it is installed.

    A killed run may have written rows beyond its last state, and half a row: what lies beyond `progress` is dropped, so
    that each step is there once.
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

    def __enter__(self) -> "Curve":
        return self

    def write(self, progress: Progress, batch_size: int, **figures: float) -> None:
        """Add a row of the step that `progress` has just done."""
        if self.empty:
            self.rows.writerow(["step", "images", "seconds", *figures])
            self.empty = False
        row = [progress.step, progress.step * batch_size, f"{progress.seconds:.1f}"]
        self.rows.writerow(row + [f"{value:.6g}" for value in figures.values()])
        if progress.step % 50 == 0:
            self.flush()
        for name, value in figures.items() if self.board else ():
            self.board.add_scalar(name, value, progress.step)

    def flush(self) -> None:
        """Hand all rows to the system: a state must not be ahead of its curve."""
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        self.file.close()
        if self.board:
            self.board.close()


def read_rows(path: Path, last: int) -> tuple[list[str], list[list[str]]]:
    """The header of a curve and its whole rows up to step `last`, each step once; empty lists where there is none."""
    if last == 0 or not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    whole = {int(row[0]): row for row in rows if len(row) == len(header) and row[0].isdecimal()}
    return header, [whole[step] for step in sorted(whole) if step <= last]


class Meter:
    """A progress bar with images/s and the time left, over steps, or over seconds where the budget is a time."""

    def __init__(self, budget: Budget, progress: Progress, batch_size: int, quiet: bool):
        self.budget, self.batch_size = budget, batch_size
        self.first = self.now = copy.copy(progress)
        self.fresh = True
        timed = budget.minutes is not None
        self.bar = tqdm(
            total=60 * budget.minutes if timed else budget.steps,
            initial=min(progress.seconds, 60 * budget.minutes) if timed else min(progress.step, budget.steps),
            bar_format="{l_bar}{bar}| " + ("{n:.0f}/{total:.0f} s" if timed else "{n}/{total} steps") + "{postfix}",
            disable=quiet,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Meter":
        return self

    def advance(self, progress: Progress, **figures: float) -> None:
        """Show that `progress` has been reached."""
        self.now = copy.copy(progress)
        self.bar.set_postfix_str(
            f"{self.speed:.1f} images/s, ETA {self.left / 60:.0f} min"
            + "".join(f", {name} {value:.4g}" for name, value in figures.items()),
            refresh=False,
        )
        reached = progress.step if self.budget.minutes is None else progress.seconds
        self.bar.update(min(reached, self.bar.total) - self.bar.n)
        if self.fresh:  # the first step of a session compiles the network: its time says nothing of the others'
            self.first, self.fresh = self.now, False

    @property
    def speed(self) -> float:
        """Images per second in this session, without its first step once there are more; 0 before it."""
        steps, seconds = self.now.step - self.first.step, self.now.seconds - self.first.seconds
        return steps * self.batch_size / max(seconds, 1e-9)

    @property
    def left(self) -> float:
        """Seconds until the budget is spent, at this session's speed; infinite while that is unknown."""
        if self.budget.minutes is not None:
            return max(60 * self.budget.minutes - self.now.seconds, 0.0)
        images = max(self.budget.steps - self.now.step, 0) * self.batch_size
        return images / self.speed if self.speed else float("inf")

    def __exit__(self, *_: object) -> None:
        self.bar.close()
