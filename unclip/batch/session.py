"""A session: a prompt file or a sweep from its check to its exit code."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.batch.estimate import Workload, cell_size, estimate, format_bytes
from unclip.batch.folder_check import counted
from unclip.batch.generation import Engine, LocalEngine, Output
from unclip.batch.jobs import Job, Settings, Task, check_rows
from unclip.batch.manifest import read_entries
from unclip.batch.moved_lines import find_moved
from unclip.batch.output_folder import ERRORS, Folder, disk_full, read_folder
from unclip.batch.previews import Previews
from unclip.batch.prompt_file import PromptFile
from unclip.batch.report import Report, Totals
from unclip.batch.row import BadLine
from unclip.batch.runner import Runner
from unclip.batch.sweep import Sweep
from unclip.batch.syntax_notes import SyntaxNotes
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import InputError, UnclipError
from unclip.images.contact_sheet import layout, sheet, size_of
from unclip.images.inputs import check_inputs
from unclip.requests.request import Request
from unclip.system.interrupts import StopOnInterrupt

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

_MAX_SHOWN = 20  # bad lines that are reported one by one; errors.jsonl has all of them


@dataclass(frozen=True)
class Grid:
    """A contact sheet of all images. labels: with prompts and seeds."""

    labels: bool


@dataclass(frozen=True, kw_only=True)
class Session:
    """A prompt file, or a sweep, and the model that runs it. `run` and `dry_run` return the exit code."""

    prompts: PromptFile | Sweep
    model: ModelIdentity
    output: Output
    report: Report
    strict: bool = False
    grid: Grid | None = None
    preview: bool = False
    verify: bool = False
    redo_moved: bool = False

    def dry_run(self, settings: Settings, out: Path) -> int:
        """Check every line and report what `run` would make. Nothing is written."""
        folder = read_folder(out, verify=self.verify)
        workload, bad = self._check(settings, None, folder)
        workload.done += len(self._find_moved(settings, folder, workload))
        self._check_grid(workload, cell_size(workload, self.model))
        self.report.plan(estimate(workload, self.model, out, self.output.format, bad))
        return (2 if self.strict else 1) if bad else 0

    def run(
        self,
        settings: Settings,
        folder: Folder,
        load: Callable[[], "Unclip"],
        batch_size: int,
        engine: Engine | None = None,
    ) -> int:
        """Generate the images that the folder does not have.

        load: loads the model, which checks the lines and, without an `engine`, generates the images.
        Raises InputError before the first image: for bad lines if strict, for a file without prompts, and for a contact
        sheet that is too large.
        """
        workload, bad = self._check(settings, folder, folder)
        self._refuse_if_strict(bad, folder)
        if moved := self._find_moved(settings, folder, workload):
            folder.move(moved)
            workload.done += len(moved)
        self._check_grid(workload, cell_size(workload, self.model))
        totals = Totals(skipped=workload.done)
        if workload.images > workload.done:
            needed = estimate(workload, self.model, folder.path, self.output.format).bytes
            if needed > (free := shutil.disk_usage(folder.path).free):
                self.report.note(f"the images may need {format_bytes(needed)}, but {format_bytes(free)} are free")
            pipe = load()
            bad += self._check_with_model(pipe, settings, folder, workload, bad)
            self._refuse_if_strict(bad, folder)
            totals = self._generate(pipe, settings, folder, workload, batch_size, engine)
        self.report.end(totals, bad, folder.path / ERRORS)
        if totals.stopped:
            self.report.resumable()
            return 130
        if self.grid is not None:
            self._write_grid(settings, folder)
        return 1 if bad or totals.failed else 0

    def _check(self, settings: Settings, folder: Folder | None, existing: Folder) -> tuple[Workload, int]:
        """Check every line without the model, and report the bad ones.

        Returns the work of the good lines and the number of bad ones. folder: records the bad lines; existing: has the
        images that are done.
        """
        for note in existing.notes:
            self.report.note(note)
        workload, bad = Workload(), 0
        notes = SyntaxNotes()
        last = time.monotonic()
        for count, line in enumerate(_readable_lines(self.prompts, settings)):
            if time.monotonic() - last > 10:
                self.report.say(f"checked {count:,} lines")
                last = time.monotonic()
            if isinstance(line, BadLine):
                self._report_bad(line, folder, bad)
                bad += 1
                continue
            workload.add(line.request, line.count)
            notes.add(line)
            if existing.done:
                workload.done += sum(existing.is_done(job.key) for job in line.jobs())
        for note in notes:
            self.report.note(note)
        if bad > _MAX_SHOWN:
            self.report.more_bad_lines(bad - _MAX_SHOWN, folder.path / ERRORS if folder else None)
        if not workload.images and not bad:
            raise InputError(f"{self.prompts.name} holds no prompts for this run; write one per line")
        return workload, bad

    def _find_moved(self, settings: Settings, folder: Folder, workload: Workload) -> dict[str, dict[str, Any]]:
        """The finished images of lines that have moved in the file, as `Folder.move` takes them; none if unwanted."""
        if folder.done == workload.done:  # no image is left over
            return {}
        found = find_moved(self.prompts, settings, folder)
        moved, lines = counted(len(found.lines), "image"), f"lines that have moved in {self.prompts.name}"
        if found.lines and self.redo_moved:
            self.report.note(f"{moved} of {lines} will be generated again")
        elif found.lines:
            self.report.note(f"{moved} of {lines} are kept, with their names and seeds; --redo-moved makes new ones")
        if found.unused:
            unused = counted(found.unused, "image")
            self.report.note(f"no line of {self.prompts.name}, as it is now, asks for {unused} in {folder.path}")
        return {} if self.redo_moved else found.lines

    def _check_with_model(
        self, pipe: "Unclip", settings: Settings, folder: Folder, workload: Workload, bad: int
    ) -> int:
        """Report the lines that the model refuses, and return their number."""
        refused = 0
        width = height = 0
        for line in _checked_lines(self.prompts, settings, pipe):
            if isinstance(line, BadLine):
                self._report_bad(line, folder, bad + refused)
                refused += 1
            elif self.grid is not None and (size := _output_size(pipe, line.request)):
                width, height = max(width, size[0]), max(height, size[1])
        self._check_grid(workload, (width, height))
        return refused

    def _generate(
        self,
        pipe: "Unclip",
        settings: Settings,
        folder: Folder,
        workload: Workload,
        batch_size: int,
        engine: Engine | None,
    ) -> Totals:
        lines = _checked_lines(self.prompts, settings, pipe)
        jobs: Iterator[Job] = (job for line in lines if isinstance(line, Task) for job in line.jobs())
        self.report.start(workload.images - workload.done, workload.done, settings.seed)
        if engine is None:
            progress = Previews(folder.path / "previews", self.report.step) if self.preview else self.report.step
            engine = LocalEngine(pipe, self.model, self.output, batch_size, progress, self.report.note)
        try:
            with StopOnInterrupt(self.report.stopping) as interrupt:
                runner = Runner(engine, folder, self.output, self.report)
                return runner.run(jobs, batch_size, lambda: interrupt.requested)
        except KeyboardInterrupt:
            self.report.close()
            self.report.resumable()
            raise
        finally:
            self.report.close()

    def _report_bad(self, line: BadLine, folder: Folder | None, before: int) -> None:
        fields = {
            "file": self.prompts.name,
            "line": line.line,
            "index": line.index,
            "field": line.field,
            "error": line.problem,
        }
        if folder is not None:
            folder.add_error(fields)
        self.report.bad_line(fields, shown=before < _MAX_SHOWN)

    def _refuse_if_strict(self, bad: int, folder: Folder) -> None:
        if bad and self.strict:
            where = folder.path / ERRORS
            raise InputError(f"bad lines in {self.prompts.name}: {bad}, listed in {where}; nothing was made")

    def _check_grid(self, workload: Workload, cell: tuple[int, int] | None) -> None:
        """Raise InputError for a contact sheet that would be too large, before any image is generated."""
        if self.grid is not None and cell is not None and all(cell) and workload.images:
            layout(workload.images, cell, self.grid.labels)

    def _write_grid(self, settings: Settings, folder: Folder) -> None:
        """Write a contact sheet of the images of this file that exist, in the file's order."""
        assert self.grid is not None
        lines = (line for line in check_rows(self.prompts.rows(), settings) if isinstance(line, Task))
        places = {f"{job.key:016x}": place for place, job in enumerate(job for line in lines for job in line.jobs())}
        found = []
        for entry in read_entries(folder.path):
            if entry.key not in places:
                continue
            path = folder.path / entry.file
            try:
                size = size_of(path)
            except UnclipError as error:
                self.report.note(f"{error}; the grid goes without it")
                continue
            found.append((places[entry.key], path, f"{entry.seed} {entry.prompt}", size))
        if not found:
            return
        found.sort()
        images = [(path, label) for _, path, label, _ in found]
        cell = max(size[0] for *_, size in found), max(size[1] for *_, size in found)
        data = sheet(images, layout(len(images), cell, self.grid.labels))
        try:
            path = folder.write_grid("grid.png", data)
        except OSError as error:
            raise disk_full(error, folder.path) from error
        self.report.grid(path)


def _output_size(pipe: "Unclip", request: Request) -> tuple[int, int] | None:
    """(width, height) of the images of a request; None if its input cannot be read, an error that the run reports."""
    try:
        return pipe.output_size(request)
    except InputError:
        return None


def _readable_lines(prompts: PromptFile | Sweep, settings: Settings) -> Iterator[Task | BadLine]:
    """The lines; a BadLine in place of each bad one, and of each whose input files cannot be read."""
    for line in check_rows(prompts.rows(), settings):
        if isinstance(line, Task):
            try:
                check_inputs(line.request)
            except InputError as error:
                line = BadLine.of(line.row.line, line.row.index, error)
        yield line


def _checked_lines(prompts: PromptFile | Sweep, settings: Settings, pipe: "Unclip") -> Iterator[Task | BadLine]:
    """The good lines; a BadLine in place of each one that the model refuses."""
    for line in _readable_lines(prompts, settings):
        if isinstance(line, BadLine):
            continue
        try:
            pipe.check(line.request)
        except InputError as error:
            yield BadLine.of(line.row.line, line.row.index, error)
        else:
            yield line
