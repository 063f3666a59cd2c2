"""The progress of a batch on a terminal: a bar, lines, or JSON events."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unclip.batch.estimate import format_bytes, format_duration
from unclip.batch.jobs import Job
from unclip.batch.report import Plan, Totals
from unclip.cli.progress import on_terminal

INTERVAL = 10  # seconds between lines where there is no bar

MAX_NOTES = 5


class BatchProgress:
    """A `batch.report.Report` for the command line.

    A bar on a terminal, a line every INTERVAL seconds elsewhere, and notes go to standard error, unless `quiet`;
    errors always do. With `as_json`, events go to standard output.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._total = self._made = self._failed = 0
        self._started = self._last_line = 0.0
        self._image_notes: set[str] = set()
        self._run_notes: set[str] = set()

    # ---- before the first image

    def bad_line(self, fields: dict[str, Any], shown: bool) -> None:
        """Report a line that cannot be run. shown: False after the first few bad lines; later ones are only counted."""
        if self.as_json:
            self._event("bad_line", fields)
        elif shown:
            self._line(f"error: {fields['file']}:{fields['line']}: {fields['error']}")

    def more_bad_lines(self, count: int, errors: str | None) -> None:
        """Report the number of further bad lines, and the file that lists them."""
        if not self.as_json:
            self._line(f"error: {count} more bad lines" + (f"; all are in {errors}" if errors else ""))

    def plan(self, plan: Plan) -> None:
        """Report the plan of a run."""
        left = plan.images - plan.done
        if self.as_json:
            counts = {"images": plan.images, "to_make": left, "bad_lines": plan.bad, "sizes": plan.sizes}
            self._event("plan", {**counts, "seconds": plan.seconds, "bytes": plan.bytes})
            return
        print(f"images  {plan.images:,}" + (f", of which {plan.done:,} are done" if plan.done else ""))
        for size, count in plan.sizes.items():
            print(f"size    {size}: {count:,}")
        if plan.seconds is None:
            print("time    unknown until the folder has an image")
        else:
            print(f"time    about {format_duration(plan.seconds)}, at the speed of the images in the folder")
        print(f"disk    about {format_bytes(plan.bytes)}")
        print(f"bad     {plan.bad:,} lines")

    def grid_plan(self, fields: dict[str, Any], text: str) -> None:
        """Report the number of images and the grid of a sweep. fields: of the JSON event; text: the line."""
        if self.as_json:
            self._event("sweep", fields)
        else:
            self.say(text)

    # ---- while images are made

    def start(self, images: int, done: int, seed: int) -> None:
        """Start the bar. images: to make; done: already there; seed: of the run."""
        self._total = images
        self._started = self._last_line = time.monotonic()
        if self.as_json:
            self._event("start", {"images": images + done, "to_make": images, "done": done, "seed": seed})
        if on_terminal(self._quiet):
            self._start_bar()

    def generating(self, jobs: Sequence[Job]) -> None:
        """Show the prompt of the micro-batch that starts now."""
        if self._bar is not None:
            self._bar.update(self._task, prompt=_shortened(jobs[0].request.prompt))

    def step(self, stage: str, done: int, total: int) -> None:
        """Show the denoising step of a stage."""
        if self._bar is not None:
            self._bar.update(self._task, stage=f"{stage} {done}/{total}")

    def image(self, file: str, entry: Mapping[str, Any]) -> None:
        """Report an image that is saved. entry: its line in the manifest."""
        self._made += 1
        if self.as_json:
            fields = {
                "file": file,
                "seed": entry["seed"],
                "prompt": entry["request"].get("prompt", ""),
                "id": entry["id"],
            }
            self._event("image", {**fields, "score": entry["score"]})
        elif self._bar is None or not sys.stdout.isatty():
            print(f"{file}  seed {entry['seed']}", flush=True)
        for note in entry["notes"]:
            self._image_note(note)
        self._advance()

    def failure(self, job: Job, problem: str) -> None:
        """Report an image that could not be made."""
        self._failed += 1
        if self.as_json:
            self._event("failure", {"line": job.row.line, "image": job.image, "error": problem})
        else:
            self._line(f"error: line {job.row.line}: {problem}")
        self._advance()

    def note(self, text: str) -> None:
        """Print a note on the run, once."""
        if not self._quiet and text not in self._run_notes:
            self._run_notes.add(text)
            self._line(f"note: {text}")

    def say(self, text: str) -> None:
        """Print a line about the run."""
        if not self._quiet:
            self._line(text)

    def _image_note(self, text: str) -> None:
        """Print a note on an image, once; after MAX_NOTES different ones, print where to find the rest."""
        if self._quiet or text in self._image_notes or len(self._image_notes) > MAX_NOTES:
            return
        full = len(self._image_notes) == MAX_NOTES
        self._image_notes.add(text)
        self._line("note: more notes are in the manifest" if full else f"note: {text}")

    # ---- at the end

    def stopping(self) -> None:
        """Report the first interrupt."""
        self._line("finishing the current images; Ctrl-C again stops at once")

    def resumable(self) -> None:
        """Report that the run was stopped and can be resumed."""
        self._line("the same command again resumes it")

    def end(self, totals: Totals, bad: int, errors: str) -> None:
        """Report the totals, and the file that lists bad lines and failures."""
        self.close()
        seconds = time.monotonic() - self._started if self._started else 0.0
        if self.as_json:
            counts = {"made": totals.made, "skipped": totals.skipped, "failed": totals.failed, "bad_lines": bad}
            self._event("end", {**counts, "stopped": totals.stopped, "seconds": round(seconds, 3)})
        parts = [f"{_counted(totals.made, 'image')} made"]
        if totals.made and seconds:
            parts[0] += f" in {format_duration(seconds)}"
        parts += [f"{totals.skipped:,} already there"] if totals.skipped else []
        parts += [f"{totals.failed:,} failed"] if totals.failed else []
        parts += [_counted(bad, "bad line")] if bad else []
        if bad or totals.failed:
            parts[-1] += f" (see {errors})"
        if not self._quiet or bad or totals.failed:
            self._line(", ".join(parts))

    def grid(self, path: Path) -> None:
        """Report the sheet of all images, or the page of a sweep."""
        if self.as_json:
            self._event("grid", {"file": str(path)})
        elif not self._quiet:
            self._line(f"the {'page' if path.suffix == '.html' else 'grid'} is {path}")

    def close(self) -> None:
        """Clear the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        # Without markup, as a prompt may contain brackets.
        self._bar = Bars(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TextColumn("{task.fields[stage]}", markup=False),
            TextColumn("{task.fields[prompt]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=self._total, rate="", stage="", prompt="")
        self._bar.start()

    def _advance(self) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._made + self._failed, rate=self._rate(now))
        elif not self._quiet and not self.as_json and now - self._last_line >= INTERVAL:
            self._last_line = now
            self._line(f"{self._made + self._failed:,}/{self._total:,} images, {self._rate(now)}")

    def _rate(self, now: float) -> str:
        count = self._made + self._failed
        rate = count / max(now - self._started, 1e-6)
        return f"{rate:.2f} images/s, {format_duration((self._total - count) / rate)} left"

    def _line(self, text: str) -> None:
        """Print a line on standard error, above the bar if there is one."""
        line = f"unclip: {_printable(text)}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _event(self, kind: str, fields: dict[str, Any]) -> None:
        print(json.dumps({"event": kind, **fields}), flush=True)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shortened(prompt: str) -> str:
    text = _printable(prompt)
    return text if len(text) <= 40 else text[:39] + "…"


def _printable(text: str) -> str:
    """The text in one line, without control characters, which a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in text)
