"""Progress of a batch, on a terminal or as lines."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unclip.batch.estimate import Amount, spoken_bytes, spoken_time
from unclip.batch.jobs import Job
from unclip.batch.report import Totals
from unclip.cli.progress import on_terminal
from unclip.images.result import Result

EVERY = 10  # seconds between lines where there is no bar

MAX_NOTES = 5


class BatchProgress:
    """Tells of a batch: a bar on a terminal, a line now and then elsewhere; with `as_json` events on standard output.

    The bar, the lines and the notes are on standard error, and absent with `quiet`; errors are always told.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._total = self._made = self._failed = 0
        self._began = self._told = 0.0
        self._notes: set[str] = set()  # of images
        self._told_once: set[str] = set()  # of the run

    # ---- before anything is drawn

    def bad_line(self, fields: dict[str, Any], shown: bool) -> None:
        """A line of the file cannot be drawn; `shown` is False where there were enough of them."""
        if self.as_json:
            self._event("bad_line", fields)
        elif shown:
            self._line(f"error: {fields['file']}:{fields['line']}: {fields['error']}")

    def plan(self, amount: Amount, seconds: float | None, room: int, source: str, bad: int, sizes: dict) -> None:
        """What a run would make."""
        if self.as_json:
            left = amount.images - amount.done
            told = {"images": amount.images, "to_make": left, "bad_lines": bad, "sizes": sizes}
            self._event("plan", {**told, "seconds": seconds, "bytes": room, "estimate": source})
            return
        print(f"images  {amount.images:,}" + (f", of which {amount.done:,} are done" if amount.done else ""))
        for size, count in sizes.items():
            print(f"size    {size}: {count:,}")
        print(f"time    {'unknown' if seconds is None else 'about ' + spoken_time(seconds)} ({source})")
        print(f"disk    about {spoken_bytes(room)}")
        print(f"bad     {bad:,} lines")

    # ---- while it is drawn

    def start(self, images: int, done: int, seed: int) -> None:
        """So many images are to be made, so many are there; the seed of the run."""
        self._total, self._began, self._told = images, time.monotonic(), time.monotonic()
        if self.as_json:
            self._event("start", {"images": images + done, "to_make": images, "done": done, "seed": seed})
        if on_terminal(self._quiet):
            self._start_bar()

    def drawing(self, jobs: Sequence[Job]) -> None:
        if self._bar is not None:
            self._bar.update(self._task, prompt=_shown(jobs[0].request.prompt))

    def step(self, stage: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, stage=f"{stage} {done}/{total}")

    def image(self, file: str, result: Result) -> None:
        self._made += 1
        if self.as_json:
            fields = {"file": file, "seed": result.seed, "prompt": result.request.prompt, "id": result.request.id}
            self._event("image", {**fields, "score": result.score})
        elif self._bar is None or not sys.stdout.isatty():
            print(f"{file}  seed {result.seed}", flush=True)
        for note in result.notes:
            self._note_of_an_image(note)
        self._advance()

    def failure(self, job: Job, problem: str) -> None:
        self._failed += 1
        if self.as_json:
            self._event("failure", {"line": job.row.line, "image": job.image, "error": problem})
        else:
            self._line(f"error: line {job.row.line}: {problem}")
        self._advance()

    def note(self, text: str) -> None:
        """A note on the run, once."""
        if not self._quiet and text not in self._told_once:
            self._told_once.add(text)
            self._line(f"note: {text}")

    def say(self, text: str) -> None:
        """What is going on now."""
        if not self._quiet:
            self._line(text)

    def _note_of_an_image(self, text: str) -> None:
        """The same, once; after so many that they tell nothing any more only where to find them."""
        if self._quiet or text in self._notes or len(self._notes) > MAX_NOTES:
            return
        full = len(self._notes) == MAX_NOTES
        self._notes.add(text)
        self._line("note: more notes are in the manifest" if full else f"note: {text}")

    # ---- and after that

    def stopping(self) -> None:
        """The first interrupt."""
        self._line("finishing the images at hand; Ctrl-C again stops at once")

    def resumable(self) -> None:
        """The run ended before its end."""
        self._line("the same command again resumes it")

    def end(self, totals: Totals, bad: int, errors: Path) -> None:
        """The totals, and where to read what failed."""
        self.close()
        seconds = time.monotonic() - self._began if self._began else 0.0
        if self.as_json:
            told = {"made": totals.made, "skipped": totals.skipped, "failed": totals.failed, "bad_lines": bad}
            self._event("end", {**told, "stopped": totals.stopped, "seconds": round(seconds, 3)})
        parts = [f"{_counted(totals.made, 'image')} made"]
        if totals.made and seconds:
            parts[0] += f" in {spoken_time(seconds)}"
        parts += [f"{totals.skipped:,} were there"] if totals.skipped else []
        parts += [f"{totals.failed:,} failed"] if totals.failed else []
        parts += [_counted(bad, "bad line")] if bad else []
        if bad or totals.failed:
            parts[-1] += f" (see {errors})"
        if not self._quiet or bad or totals.failed:
            self._line(", ".join(parts))

    def grid(self, path: Path) -> None:
        """The sheet of all pictures is written."""
        if self.as_json:
            self._event("grid", {"file": str(path)})
        elif not self._quiet:
            self._line(f"the grid is {path}")

    def close(self) -> None:
        """Clear the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        plain = {"markup": False}  # a prompt is not to be read as rich's markup
        self._bar = Bars(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", **plain),
            TextColumn("{task.fields[stage]}", **plain),
            TextColumn("{task.fields[prompt]}", **plain),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=self._total, rate="", stage="", prompt="")
        self._bar.start()

    def _advance(self) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._made + self._failed, rate=self._rate(now))
        elif not self._quiet and not self.as_json and now - self._told >= EVERY:
            self._told = now
            self._line(f"{self._made + self._failed:,}/{self._total:,} images, {self._rate(now)}")

    def _rate(self, now: float) -> str:
        count = self._made + self._failed
        rate = count / max(now - self._began, 1e-6)
        return f"{rate:.2f} images/s, {spoken_time((self._total - count) / rate)} left"

    def _line(self, text: str) -> None:
        """One line on standard error; above the bar where there is one."""
        line = f"unclip: {_printable(text)}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _event(self, kind: str, fields: dict[str, Any]) -> None:
        print(json.dumps({"event": kind, **fields}), flush=True)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _shown(prompt: str) -> str:
    text = _printable(prompt)
    return text if len(text) <= 40 else text[:39] + "…"


def _printable(text: str) -> str:
    """One line of it, without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)
