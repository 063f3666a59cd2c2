"""Run jobs: images into a folder, in micro-batches that an engine generates."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from unclip.batch.generation import Engine, Outcome, Output, describe_error
from unclip.batch.jobs import Job
from unclip.batch.output_folder import Folder, ImageFile
from unclip.batch.progress import BLOCK, RunProgress
from unclip.batch.report import RunReport, Totals
from unclip.batch.storage import disk_full
from unclip.requests.batching import BATCH, can_share_batch

WINDOW = 32
"""Bounds the images that wait for others to share a micro-batch with, in micro-batches."""


class Runner:
    """Generates jobs with an engine and adds them to a folder."""

    def __init__(
        self,
        engine: Engine,
        folder: Folder,
        output: Output,
        report: RunReport,
        progress: RunProgress | None = None,
        block: int = BLOCK,
    ) -> None:
        """progress: records which jobs are done. block: rows of the prompt file in a block."""
        self._progress = progress
        self._block = block
        self._engine = engine
        self._folder = folder
        self._output = output
        self._report = report

    def run(self, jobs: Iterable[Job], batch_size: int = BATCH, stop: Callable[[], bool] = lambda: False) -> Totals:
        """Generate all jobs that the folder does not have yet.

        batch_size: of a micro-batch, in images. stop: called before each micro-batch; True ends the run.
        A partly finished micro-batch is generated as a whole, so that a resumed run computes the same as an
        uninterrupted one. Raises WriteError if images cannot be written; failures to generate are only reported.
        """
        totals = Totals()
        wanted: set[int] = set()  # keys of the jobs under way that the folder lacks

        def batches() -> Iterator[Sequence[Job]]:
            for batch in group_jobs(jobs, batch_size, self._block):
                missing = []
                for job in batch:
                    if not self._folder.is_done(job.key):
                        missing.append(job)
                        continue
                    totals.skipped += 1
                    self._done(job)
                if not missing:
                    continue
                if stop():
                    totals.stopped = True
                    return
                wanted.update(job.key for job in missing)
                self._report.generating(missing)
                yield batch

        for outcomes in self._engine.run(batches()):
            self._save([(job, outcome) for job, outcome in outcomes if job.key in wanted], totals)
            wanted.difference_update(job.key for job, _ in outcomes)
            if self._progress is not None:
                self._progress.save_if_due()
        return totals

    def _save(self, outcomes: Sequence[Outcome], totals: Totals) -> None:
        """Write images and their manifest lines, and report failures."""
        saved: list[tuple[Job, ImageFile]] = []
        for job, outcome in outcomes:
            if isinstance(outcome, str):
                self._fail(job, outcome, totals)
            else:
                saved.append((job, outcome))
        try:
            paths = self._folder.add([file for _, file in saved])
        except OSError as error:
            raise disk_full(error, self._folder.name) from error
        for (job, file), path in zip(saved, paths, strict=True):
            if isinstance(path, OSError):
                self._fail(job, describe_error(path), totals)
                continue
            self._report.image(path, file.entry)
            totals.made += 1
            self._done(job)

    def _done(self, job: Job) -> None:
        if self._progress is not None:
            self._progress.done(job)

    def _fail(self, job: Job, problem: str, totals: Totals) -> None:
        self._folder.errors.add(
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


def group_jobs(jobs: Iterable[Job], size: int, block: int = BLOCK) -> Iterator[list[Job]]:
    """Micro-batches of at most `size` jobs, looking ahead over a bounded number of jobs.

    The images of one request with best_of are one group, of any size. The groups depend on the jobs and `size` alone;
    none has jobs of two blocks, of `block` rows of the prompt file each.
    """
    for _, part in groupby(jobs, lambda job: job.row.index // block):
        yield from _group_block(part, size)


def _group_block(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
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
