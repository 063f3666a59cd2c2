"""A progress bar for the stages of a pipeline."""

import sys
import time
from typing import Any, TextIO

INTERVAL = 10.0
"""Seconds between two lines of a ProgressLines."""


class Progress:
    """Callable(stage, done, total) that shows one bar per stage on `file`; silent unless `enabled`."""

    def __init__(self, enabled: bool, file: TextIO | None = None) -> None:
        self._enabled = enabled
        self._file = file
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._enabled:
            return
        # A count that falls is the same stage of the next micro-batch.
        if self._bar is None or stage != self._stage or done < self._bar.n or total != self._bar.total:
            self.close()
            self._stage = stage
            self._bar = self._new_bar(stage, total)
        self._bar.update(done - self._bar.n)

    def _new_bar(self, stage: str, total: int) -> Any:
        from tqdm import tqdm

        file = sys.stderr if self._file is None else self._file
        return tqdm(total=total, desc=stage, file=file, leave=False, dynamic_ncols=True)

    def close(self) -> None:
        """Clear the bar, so that a line can be printed."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressLines:
    """Callable(stage, done, total) that prints a line on standard error, at most every INTERVAL seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            print(f"unclip: {stage}: {done} of {total}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing is to be cleared."""


def bar_or_lines() -> Progress | ProgressLines:
    """Progress of a long run: bars on a terminal, lines elsewhere."""
    return Progress(enabled=True) if on_terminal(quiet=False) else ProgressLines()


def on_terminal(quiet: bool) -> bool:
    """Whether to show bars: standard error is a terminal, and --quiet is not given."""
    return not quiet and sys.stderr.isatty()


def note(text: str) -> None:
    """Print a note on standard error."""
    print(f"unclip: note: {text}", file=sys.stderr)
