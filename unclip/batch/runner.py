"""Run jobs: images into a folder, in micro-batches that survive the failure of a single image."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unclip.batch.file_names import NameTemplate
from unclip.batch.jobs import Job, name_values
from unclip.batch.moved_lines import source_name
from unclip.batch.output_folder import Folder, ImageFile, disk_full
from unclip.batch.report import RunReport, Totals
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import UnclipError, WriteError, is_out_of_memory
from unclip.images import metadata
from unclip.images.result import record
from unclip.inference.callbacks import Progress
from unclip.requests.batching import BATCH, can_share_batch
from unclip.requests.request import Request
from unclip.version import __version__

if TYPE_CHECKING:
    from unclip.images.result import Result

WINDOW = 32
"""Bounds the images that wait for others to share a micro-batch with, in micro-batches."""


class Pipeline(Protocol):
    """The methods of `pipeline.Unclip` that a run needs."""

    def resolve(self, request: Request) -> Request: ...
    def generate_batch(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]: ...
    def generate_best(
        self, request: Request, progress: Progress | None = None, batch_size: int = BATCH
    ) -> list[Result]: ...


@dataclass(frozen=True)
class Output:
    """The naming and the format of the images. source: name of the prompt file, for error messages."""

    source: str
    name: NameTemplate
    format: str = "png"


@dataclass(frozen=True)
class RunOptions:
    """The settings of a run.

    batch_size: of a micro-batch, in images. stop: called before each micro-batch. progress: called with each denoising
    step instead of the report; a Watcher also receives the images.
    """

    batch_size: int = BATCH
    stop: Callable[[], bool] = lambda: False
    progress: Progress | None = None


class Runner:
    """Generates jobs with a pipeline and adds them to a folder."""

    def __init__(
        self,
        pipe: Pipeline,
        model: ModelIdentity,
        folder: Folder,
        output: Output,
        report: RunReport,
        options: RunOptions = RunOptions(),  # noqa: B008
    ) -> None:
        self._pipe = pipe
        self._model = model
        self._folder = folder
        self._output = output
        self._report = report
        self._options = options
        self._progress: Progress = report.step if options.progress is None else options.progress
        self._limit = options.batch_size  # images that memory has room for

    def run(self, jobs: Iterable[Job]) -> Totals:
        """Generate all jobs that the folder does not have yet.

        A partly finished micro-batch is generated as a whole, so that a resumed run computes the same as an
        uninterrupted one. Raises WriteError if images cannot be written; failures to generate are only reported.
        """
        totals = Totals()
        for batch in group_jobs(jobs, self._options.batch_size):
            missing = {job.key for job in batch if not self._folder.is_done(job.key)}
            totals.skipped += len(batch) - len(missing)
            if not missing:
                continue
            if self._options.stop():
                totals.stopped = True
                break
            self._report.generating([job for job in batch if job.key in missing])
            for outcomes in self._generate(batch):
                self._save([(job, outcome) for job, outcome in outcomes if job.key in missing], totals)
        return totals

    def _save(self, outcomes: Sequence[tuple[Job, Result | Exception]], totals: Totals) -> None:
        """Write images and their manifest lines, and report failures."""
        saved: list[tuple[Job, Result, ImageFile]] = []
        for job, outcome in outcomes:
            if isinstance(outcome, Exception):
                self._fail(job, outcome, totals)
                continue
            try:
                saved.append((job, outcome, self._image_file(job, outcome)))
            except Exception as error:  # for instance a record that is too long for the format
                self._fail(job, error, totals)
        try:
            paths = self._folder.add([file for _, _, file in saved])
        except OSError as error:
            raise disk_full(error, self._folder.path) from error
        for (job, result, _), path in zip(saved, paths, strict=True):
            if isinstance(path, OSError):
                self._fail(job, path, totals)
                continue
            self._report.image(str(path), result)
            totals.made += 1

    def _generate(self, batch: Sequence[Job]) -> Iterator[list[tuple[Job, Result | Exception]]]:
        """The results of a micro-batch; for an image that cannot be generated, the error.

        A micro-batch that fails is split in halves, until the image that fails is alone. If memory was short, later
        micro-batches are no larger than the half.
        """
        waiting = deque([list(batch)])
        while waiting:
            part = waiting.popleft()
            ranked = part[0].request.best_of is not None
            if len(part) > self._limit and not ranked:
                chunks = [part[i : i + self._limit] for i in range(0, len(part), self._limit)]
                waiting.extendleft(reversed(chunks))
                continue
            try:
                results = self._generate_best(part) if ranked else self._generate_plain(part)
            except WriteError:  # of a preview: the images would find no room either
                raise
            except Exception as error:  # any error: one image must not end a long run
                size = min(self._limit, part[0].request.best_of or len(part))
                half = (size + 1) // 2
                out_of_memory = is_out_of_memory(error)
                if out_of_memory:
                    _free_memory()
                if size == 1 or ranked and not out_of_memory:
                    yield [(job, error) for job in part]
                    continue
                if out_of_memory and half < self._limit:
                    self._limit = half
                    self._report.note(f"out of memory with {size} images at a time; continuing with {half}")
                waiting.extendleft([part] if ranked else [part[half:], part[:half]])
                continue
            yield list(zip(part, results, strict=True))

    def _generate_plain(self, jobs: Sequence[Job]) -> list[Result]:
        return self._pipe.generate_batch([self._pipe.resolve(job.request) for job in jobs], self._progress)

    def _generate_best(self, jobs: Sequence[Job]) -> list[Result]:
        """The images of one request with best_of. The candidates are generated once for all of them."""
        count = max(job.rank for job in jobs) + 1
        request = self._pipe.resolve(jobs[0].request.replace(n=count))
        ranking = self._pipe.generate_best(request, self._progress, self._limit)
        return [ranking[job.rank] for job in jobs]

    def _image_file(self, job: Job, result: Result) -> ImageFile:
        """A result as an image file with a name, and its manifest line."""
        made = record(result)
        request = result.request
        entry: dict[str, Any] = {
            "id": request.id,
            "line": job.row.line,
            "index": job.row.index,
            "image": job.image,
            "seed": result.seed,
            "request": request.to_dict(),
            **({"inputs": result.inputs} if result.inputs else {}),
            "model": result.model,
            "revision": self._model.revision,
            **{name: made[name] for name in ("image_encoder", "prior", "loras") if name in made},
            "dtype": result.dtype,
            "version": __version__,
            "score": result.score,
            **({"ranked": list(result.ranked)} if result.ranked else {}),
            "timings": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
            "pixels": made["pixels"],
            "notes": list(result.notes),
            "columns": job.row.columns,
            "source": source_name(self._output.source),
            "content": f"{job.content:016x}",
            "key": job.key,
        }
        name = self._output.name.name(name_values(job, request, result.model), f".{self._output.format}")
        return ImageFile(name, metadata.image_bytes(result.image, made, self._output.format), entry)

    def _fail(self, job: Job, error: Exception, totals: Totals) -> None:
        problem = describe_error(error)
        self._folder.add_error(
            {
                "file": self._output.source,
                "line": job.row.line,
                "index": job.row.index,
                "image": job.image,
                "field": None,
                "error": problem,
                "request": job.request.to_dict(),
                "columns": job.row.columns,
            }
        )
        self._report.failure(job, problem)
        totals.failed += 1


def group_jobs(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Micro-batches of at most `size` jobs, looking ahead over a bounded number of jobs.

    The images of one request with best_of are one group, of any size. The groups depend on the jobs and `size` alone.
    """
    waiting: deque[list[Job]] = deque()  # groups of jobs that can share a micro-batch, oldest first
    ranked: list[Job] = []
    count = 0
    for job in jobs:
        if ranked and not _have_same_candidates(ranked[0], job):
            yield ranked
            ranked = []
        if job.request.best_of is not None:
            ranked.append(job)
            continue
        group = next((group for group in waiting if can_share_batch(group[0].request, job.request)), None)
        if group is None:
            group = []
            waiting.append(group)
        group.append(job)
        count += 1
        if len(group) == size:
            waiting.remove(group)
        elif count > WINDOW * size:
            group = waiting.popleft()
        else:
            continue
        count -= len(group)
        yield group
    if ranked:
        yield ranked
    yield from waiting


def _have_same_candidates(one: Job, other: Job) -> bool:
    return one.row == other.row and one.request == other.request


def describe_error(error: Exception) -> str:
    """An error as one line."""
    if is_out_of_memory(error):
        return "out of memory with one image at a time; use a smaller size, or --dtype bfloat16"
    text = " ".join(str(error).split())
    return text if isinstance(error, (UnclipError, OSError)) and text else f"{type(error).__name__}: {text}"


def _free_memory() -> None:
    """Return the device's cached memory, so that a smaller micro-batch finds room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
