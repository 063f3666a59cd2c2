"""A session: a prompt file or a sweep from its check to its exit code."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unclip.batch.checked_lines import checked_lines, output_size, readable_lines
from unclip.batch.contact_sheet import write_contact_sheet
from unclip.batch.error_file import ERRORS
from unclip.batch.estimate import Workload, cell_size, estimate, format_bytes
from unclip.batch.folder_check import counted
from unclip.batch.generation import Engine, LocalEngine, Output
from unclip.batch.jobs import Job, Settings
from unclip.batch.moved_lines import find_moved, source_name
from unclip.batch.output_folder import Folder
from unclip.batch.previews import Previews
from unclip.batch.progress import BLOCK, Blocks, Checked, RunProgress, SavedProgress, restore, settings_digest
from unclip.batch.prompt_file import PromptFile
from unclip.batch.report import Report, Totals
from unclip.batch.row import BadLine
from unclip.batch.runner import Runner
from unclip.batch.sweep import Sweep
from unclip.batch.syntax_notes import SyntaxNotes
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import InputError
from unclip.images.contact_sheet import layout
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
    naming: Mapping[str, str | None] = field(default_factory=dict)
    """Options that the images depend on beside the requests, as `run_record.run_seed` takes them."""

    def dry_run(self, settings: Settings, folder: Folder) -> int:
        """Check every line and report what `run` would make. Nothing is written."""
        checked = self._resume(settings, folder, record=False)
        if checked is None:
            checked = self._check(settings, None, folder)
            checked.workload.done += len(self._find_moved(settings, folder, checked))
        self._check_grid(checked.workload, cell_size(checked.workload, self.model))
        self.report.plan(estimate(checked.workload, self.model, folder.path, self.output.format, checked.bad))
        return (2 if self.strict else 1) if checked.bad else 0

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
        checked = self._resume(settings, folder, record=True)
        is_resumed = checked is not None
        if checked is None:
            checked = self._check(settings, folder, folder)
        self._refuse_if_strict(checked.bad, folder)
        if moved := {} if is_resumed else self._find_moved(settings, folder, checked):
            folder.move(moved)
            checked.workload.done += len(moved)
        workload = checked.workload
        self._check_grid(workload, cell_size(workload, self.model))
        totals = Totals(skipped=workload.done)
        if workload.images > (checked.blocks.finished_images if is_resumed else workload.done):
            needed = estimate(workload, self.model, folder.path, self.output.format).bytes
            free = folder.storage.free()
            if free is not None and needed > free:
                self.report.note(f"the images may need {format_bytes(needed)}, but {format_bytes(free)} are free")
            pipe = load()
            if not checked.by_model:
                self._check_with_model(pipe, settings, folder, checked)
                self._refuse_if_strict(checked.bad, folder)
            progress = self._progress(settings, folder, checked)
            totals = self._generate(pipe, settings, folder, checked, progress, batch_size, engine)
        elif not is_resumed and (progress := self._progress(settings, folder, checked)):
            checked.blocks.finish()
            progress.save()
        self.report.end(totals, checked.bad, folder.where(ERRORS))
        if totals.stopped:
            self.report.resumable()
            return 130
        if self.grid is not None:
            write_contact_sheet(self.prompts, settings, folder.path, self.grid.labels, self.report)
        return 1 if checked.bad or totals.failed else 0

    def _check(self, settings: Settings, folder: Folder | None, existing: Folder) -> Checked:
        """Check every line without the model, and report the bad ones.

        folder: records the bad lines; existing: has the images that are done.
        """
        for note in existing.notes:
            self.report.note(note)
        digest = self.prompts.digest() if folder is not None and isinstance(self.prompts, PromptFile) else None
        checked = Checked(Workload(), Blocks(self._block(settings)), digest)
        notes = SyntaxNotes()
        last = time.monotonic()
        for count, line in enumerate(readable_lines(self.prompts, settings)):
            if time.monotonic() - last > 10:
                self.report.say(f"checked {count:,} lines")
                last = time.monotonic()
            if isinstance(line, BadLine):
                checked.blocks.add(line.index, line.line)
                self._report_bad(line, folder, checked)
                continue
            checked.workload.add(line.request, line.count)
            checked.blocks.add(line.row.index, line.row.line, line.count)
            checked.is_repeatable &= not line.given
            notes.add(line)
            if existing.done:
                checked.workload.done += sum(existing.is_done(job.key) for job in line.jobs())
        checked.is_repeatable &= settings.word_lists is None or not settings.word_lists.is_used
        for note in notes:
            self._note(note, checked)
        if checked.bad > _MAX_SHOWN:
            self.report.more_bad_lines(checked.bad - _MAX_SHOWN, folder.where(ERRORS) if folder else None)
        if not checked.workload.images and not checked.bad:
            raise InputError(f"{self.prompts.name} holds no prompts for this run; write one per line")
        return checked

    def _resume(self, settings: Settings, folder: Folder, *, record: bool) -> Checked | None:
        """The check of an earlier run, if the same file was checked with the same settings; its bad lines are reported.

        record: whether the folder records them.
        """
        if folder.saved is None or not isinstance(self.prompts, PromptFile) or self.grid is not None:
            return None
        try:
            saved = SavedProgress.model_validate(folder.saved)
            digest = self.prompts.digest()
            bad = sum(1 for _ in folder.errors.bad_lines())
        except (OSError, ValueError):
            return None
        is_same = saved.settings == self._settings_digest(settings) and saved.sha256 == digest.sha256
        checked = restore(saved, digest, folder.recent, self._block(settings)) if is_same else None
        if checked is None or checked.bad != bad:
            return None
        folder.resume(checked.blocks.keys)
        for note in (*folder.notes, *checked.notes):
            self.report.note(note)
        for before, fields in enumerate(folder.errors.bad_lines()):
            if record:
                folder.errors.add(fields)
            self.report.bad_line(fields, shown=before < _MAX_SHOWN)
        if bad > _MAX_SHOWN:
            self.report.more_bad_lines(bad - _MAX_SHOWN, folder.where(ERRORS) if record else None)
        return checked

    def _progress(self, settings: Settings, folder: Folder, checked: Checked) -> RunProgress | None:
        """The progress of the run, to be saved; None if what was checked depends on more than the file."""
        prompts, digest = self.prompts, checked.digest
        if not isinstance(prompts, PromptFile) or digest is None:
            return None
        if not checked.is_saved:
            folder.forget()
            if not checked.is_repeatable:
                return None
            folder.errors.keep_bad_lines()
        folder.begin_saving()

        def save(record: dict[str, Any]) -> None:
            if not prompts.is_changed(digest):  # by someone, while the run reads it
                folder.save(record)

        return RunProgress(checked, self._settings_digest(settings), save)

    def _settings_digest(self, settings: Settings) -> str:
        assert isinstance(self.prompts, PromptFile)
        model = [self.model.name, self.model.revision, dict(self.naming)]
        return settings_digest(settings, source_name(self.prompts.name), self.prompts.format, model)

    def _block(self, settings: Settings) -> int:
        return BLOCK * settings.shard[1]

    def _note(self, text: str, checked: Checked) -> None:
        """Report a note about the prompt file, now and in later runs that do not check it again."""
        self.report.note(text)
        checked.notes.append(text)

    def _find_moved(self, settings: Settings, folder: Folder, checked: Checked) -> dict[str, dict[str, Any]]:
        """The finished images of lines that have moved in the file, as `Folder.move` takes them; none if unwanted."""
        if folder.done == checked.workload.done:  # no image is left over
            return {}
        found = find_moved(self.prompts, settings, folder)
        moved, lines = counted(len(found.lines), "image"), f"lines that have moved in {self.prompts.name}"
        if found.lines and self.redo_moved:
            self.report.note(f"{moved} of {lines} will be generated again")
        elif found.lines:
            self.report.note(f"{moved} of {lines} are kept, with their names and seeds; --redo-moved makes new ones")
        if found.unused:
            unused = counted(found.unused, "image")
            self._note(f"no line of {self.prompts.name}, as it is now, asks for {unused} in {folder.name}", checked)
        return {} if self.redo_moved else found.lines

    def _check_with_model(self, pipe: "Unclip", settings: Settings, folder: Folder, checked: Checked) -> None:
        """Report the lines that the model refuses."""
        width = height = 0
        for line, problem in checked_lines(self.prompts, settings, pipe):
            if problem is not None:
                checked.refuse(line)
                self._report_bad(BadLine.of(line.row.line, line.row.index, problem), folder, checked)
            elif self.grid is not None and (size := output_size(pipe, line.request)):
                width, height = max(width, size[0]), max(height, size[1])
        self._check_grid(checked.workload, (width, height))
        checked.by_model = True

    def _generate(
        self,
        pipe: "Unclip",
        settings: Settings,
        folder: Folder,
        checked: Checked,
        progress: RunProgress | None,
        batch_size: int,
        engine: Engine | None,
    ) -> Totals:
        workload, block = checked.workload, self._block(settings)
        skipped, before = list(checked.blocks.skipped(settings.shard[0])), checked.blocks.finished_images
        lines = checked_lines(self.prompts, settings, pipe, skipped)
        jobs: Iterator[Job] = (job for line, problem in lines if problem is None for job in line.jobs())
        self.report.start(workload.images - workload.done, workload.done, settings.seed)
        if engine is None:
            step = Previews(folder.path / "previews", self.report.step) if self.preview else self.report.step
            engine = LocalEngine(pipe, self.model, self.output, batch_size, step, self.report.note)
        try:
            with StopOnInterrupt(self.report.stopping) as interrupt:
                runner = Runner(engine, folder, self.output, self.report, progress, block)
                totals = runner.run(jobs, batch_size, lambda: interrupt.requested)
                totals.skipped += before
                return totals
        except KeyboardInterrupt:
            self.report.close()
            self.report.resumable()
            raise
        finally:
            self.report.close()
            if progress is not None:
                progress.save()

    def _report_bad(self, line: BadLine, folder: Folder | None, checked: Checked) -> None:
        fields = {
            "file": self.prompts.name,
            "line": line.line,
            "index": line.index,
            "field": line.field,
            "error": line.problem,
        }
        if folder is not None:
            folder.errors.add(fields)
        self.report.bad_line(fields, shown=checked.bad < _MAX_SHOWN)
        checked.bad += 1

    def _refuse_if_strict(self, bad: int, folder: Folder) -> None:
        if bad and self.strict:
            where = folder.where(ERRORS)
            raise InputError(f"bad lines in {self.prompts.name}: {bad}, listed in {where}; nothing was made")

    def _check_grid(self, workload: Workload, cell: tuple[int, int] | None) -> None:
        """Raise InputError for a contact sheet that would be too large, before any image is generated."""
        if self.grid is not None and cell is not None and all(cell) and workload.images:
            layout(workload.images, cell, self.grid.labels)
