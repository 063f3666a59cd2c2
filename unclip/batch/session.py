"""A batch from its prompt file to its exit code: check, load, check with the model, draw, tell."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.batch.estimate import Amount, largest, measure, size_counts, spoken_bytes
from unclip.batch.interrupt import StopOnInterrupt
from unclip.batch.jobs import Job, Settings, Task, tasks
from unclip.batch.output_folder import ERRORS, MANIFEST, Folder, disk_full, look_into
from unclip.batch.previews import Previews
from unclip.batch.prompt_file import PromptFile
from unclip.batch.report import Totals
from unclip.batch.row import BadLine
from unclip.batch.runner import Output, run
from unclip.checkpoints.identity import Model
from unclip.cli.batch_progress import BatchProgress
from unclip.errors import InputError
from unclip.images.contact_sheet import layout, sheet, size_of
from unclip.requests.request import Request

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

_SHOWN = 20  # bad lines; errors.jsonl has all of them


@dataclass(frozen=True)
class Grid:
    """That a sheet of all pictures is wanted, and whether with labels."""

    labels: bool


@dataclass(frozen=True, kw_only=True)
class Session:
    """A prompt file that is to be drawn by a model. `run` and `dry_run` return the exit code."""

    prompts: PromptFile
    model: Model
    output: Output
    progress: BatchProgress
    strict: bool = False
    grid: Grid | None = None
    preview: bool = False

    def dry_run(self, plan: Settings, out: Path) -> int:
        """Check every line and say what `run` would make; nothing is written."""
        amount, bad = self._check(plan, None, look_into(out))
        self._check_grid(amount, largest(amount, self.model))
        seconds, size, source = measure(amount, self.model, out, self.output.format)
        self.progress.plan(amount, seconds, size, source, bad, size_counts(amount, self.model))
        return (2 if self.strict else 1) if bad else 0

    def run(self, plan: Settings, folder: Folder, load: Callable[[], "Unclip"], batch_size: int) -> int:
        """Draw what the folder does not have yet. Raises InputError before the first image, for instance if strict."""
        amount, bad = self._check(plan, folder, folder)
        self._refuse_if_strict(bad, folder)
        self._check_grid(amount, largest(amount, self.model))
        totals = Totals(skipped=amount.done)
        if amount.images > amount.done:
            _, needed, _ = measure(amount, self.model, folder.path, self.output.format)
            if needed > (free := shutil.disk_usage(folder.path).free):
                self.progress.note(f"the pictures may need {spoken_bytes(needed)}, and {spoken_bytes(free)} are free")
            pipe = load()
            bad += self._check_with(pipe, plan, folder, amount, bad)
            self._refuse_if_strict(bad, folder)
            totals = self._draw(pipe, plan, folder, amount, batch_size)
        self.progress.end(totals, bad, folder.path / ERRORS)
        if totals.stopped:
            self.progress.resumable()
            return 130
        if self.grid is not None:
            self._write_grid(plan, folder)
        return 1 if bad or totals.failed else 0

    def _check(self, plan: Settings, folder: Folder | None, before: Folder) -> tuple[Amount, int]:
        """Check every line without the model; tell the bad ones. -> (what the good ones ask for, number of bad ones)

        folder: where the bad ones are recorded; before: where what is done is known.
        """
        amount, bad = Amount(), 0
        last = time.monotonic()
        for count, line in enumerate(tasks(self.prompts.rows(), plan)):
            if time.monotonic() - last > 10:
                self.progress.say(f"checked {count:,} lines")
                last = time.monotonic()
            if isinstance(line, BadLine):
                self._report(line, folder, bad)
                bad += 1
                continue
            amount.add(line.request, line.count)
            if before.done:
                amount.done += sum(before.is_done(job.key) for job in line.jobs())
        if bad > _SHOWN and not self.progress.as_json:
            where = f"; all are in {folder.path / ERRORS}" if folder else ""
            print(f"unclip: error: {bad - _SHOWN} more bad lines{where}", file=sys.stderr)
        if not amount.images and not bad:
            raise InputError(f"{self.prompts.name} holds no prompts for this run; write one a line")
        return amount, bad

    def _check_with(self, pipe: "Unclip", plan: Settings, folder: Folder, amount: Amount, bad: int) -> int:
        """Tell the lines that the model refuses, and how many they are."""
        refused = 0
        largest_of = (0, 0)
        for line in _resolved(self.prompts, plan, pipe):
            if isinstance(line, BadLine):
                self._report(line, folder, bad + refused)
                refused += 1
            elif self.grid is not None and (size := _size(pipe, line.request)):
                largest_of = max(largest_of[0], size[0]), max(largest_of[1], size[1])
        self._check_grid(amount, largest_of)
        return refused

    def _draw(self, pipe: "Unclip", plan: Settings, folder: Folder, amount: Amount, batch_size: int) -> Totals:
        jobs: Iterator[Job] = (
            job for line in _resolved(self.prompts, plan, pipe) if isinstance(line, Task) for job in line.jobs()
        )
        self.progress.start(amount.images - amount.done, amount.done, plan.seed)
        try:
            with StopOnInterrupt(self.progress.stopping) as interrupt:
                return run(
                    pipe,
                    self.model,
                    jobs,
                    folder,
                    self.output,
                    self.progress,
                    batch_size=batch_size,
                    stop=lambda: interrupt.asked,
                    watch=Previews(folder.path / "previews", self.progress.step) if self.preview else None,
                )
        except KeyboardInterrupt:
            self.progress.close()
            self.progress.resumable()
            raise
        finally:
            self.progress.close()

    def _report(self, line: BadLine, folder: Folder | None, before: int) -> None:
        told = {"line": line.line, "index": line.index, "field": line.field, "error": line.problem}
        fields = {"file": self.prompts.name, **told}
        if folder is not None:
            folder.error(fields)
        self.progress.bad_line(fields, shown=before < _SHOWN)

    def _refuse_if_strict(self, bad: int, folder: Folder) -> None:
        if bad and self.strict:
            where = folder.path / ERRORS
            raise InputError(f"bad lines in {self.prompts.name}: {bad}, listed in {where}; nothing was made")

    def _check_grid(self, amount: Amount, cell: tuple[int, int] | None) -> None:
        """Too large a sheet is to fail now, not when all is drawn."""
        if self.grid is not None and cell is not None and all(cell) and amount.images:
            layout(amount.images, cell, self.grid.labels)

    def _write_grid(self, plan: Settings, folder: Folder) -> None:
        """A sheet of the pictures of this file that are there, in the file's order."""
        lines = [line for line in tasks(self.prompts.rows(), plan) if isinstance(line, Task)]
        wanted = {f"{job.key:016x}": place for place, job in enumerate(job for line in lines for job in line.jobs())}
        found = []
        with (folder.path / MANIFEST).open("rb") as manifest:
            for entry in map(json.loads, manifest):
                if entry["key"] in wanted and os.path.isfile(folder.path / entry["file"]):
                    label = f"{entry['seed']} {entry['request']['prompt']}"
                    found.append((wanted[entry["key"]], folder.path / entry["file"], label))
        if not found:
            return
        pictures = [(path, label) for _, path, label in sorted(found)]
        sizes = [size_of(path) for path, _ in pictures]
        cell = max(width for width, _ in sizes), max(height for _, height in sizes)
        made = sheet(pictures, layout(len(pictures), cell, self.grid.labels))
        try:
            path = folder.put_grid("grid.png", made)
        except OSError as error:
            raise disk_full(error, folder.path) from error
        self.progress.grid(path)


def _size(pipe: "Unclip", request: Request) -> tuple[int, int] | None:
    """(width, height) of what a request makes; None of what cannot be read, which is told when its turn comes."""
    try:
        return pipe.picture_size(request)
    except InputError:
        return None


def _resolved(prompts: PromptFile, plan: Settings, pipe: "Unclip") -> Iterator[Task | BadLine]:
    """The good lines as they are, and those among them that the model refuses as bad ones."""
    for line in tasks(prompts.rows(), plan):
        if isinstance(line, BadLine):
            continue
        try:
            pipe.check_towers(pipe.resolve(line.request))
        except InputError as error:
            yield BadLine.of(line.row.line, line.row.index, error)
        else:
            yield line
