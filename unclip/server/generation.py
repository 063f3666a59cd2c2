"""The part of the server that runs in the worker's thread: micro-batches to results, with an error per image."""

import gc
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from PIL import Image

from unclip.checkpoints.offload import release_cached_memory
from unclip.errors import is_out_of_memory
from unclip.images.result import Result
from unclip.inference.callbacks import Progress, Watcher
from unclip.inference.model import UnclipModel
from unclip.requests.batching import BATCH
from unclip.requests.request import Request
from unclip.server.jobs import Event, Failed, Finished, Job, Preview, Step, Task
from unclip.server.previews import EditPreview

Report = Callable[[Job, Event], None]
"""Called with each event of a job, in the worker's thread."""


class Pipeline(Protocol):
    """The parts of `pipeline.Unclip` that generate."""

    model: UnclipModel

    def generate_batch(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]: ...
    def generate_best(
        self, request: Request, progress: Progress | None = None, batch_size: int = BATCH
    ) -> list[Result]: ...


class Cancelled(Exception):
    """All clients of a micro-batch have gone."""


class Generator:
    """Generates micro-batches. If memory is short, it continues with smaller ones of the same kind."""

    def __init__(self, models: Mapping[str, Pipeline], batch_size: int) -> None:
        self._models = models
        self._batch_size = batch_size
        self._limits: dict[tuple[str, str], int] = {}  # images that memory has room for, by model and mode
        self.out_of_memory = 0

    def limit(self, task: Task) -> int:
        """The most images of a task's kind that are generated together."""
        return self._limits.get((task.job.model, task.request.mode), self._batch_size)

    def run(self, tasks: Sequence[Task], report: Report) -> None:
        """Report a Finished for each image, or a Failed. tasks: of one micro-batch.

        A micro-batch that fails is split in halves, until the image that fails is alone.
        """
        waiting = deque([list(tasks)])
        while waiting:
            part = [task for task in waiting.popleft() if not task.job.cancelled]
            if not part:
                continue
            limit = self.limit(part[0])
            if len(part) > limit:
                waiting.extendleft(reversed([part[i : i + limit] for i in range(0, len(part), limit)]))
                continue
            try:
                results = self._generate(part, report)
            except Cancelled:
                continue
            except Exception as error:  # any error: one image must not end the calls of others
                waiting.extendleft(reversed(self._split(part, error, report)))
                continue
            for task, own in zip(part, results, strict=True):
                for index, result in enumerate(own, task.index):
                    report(task.job, Finished(index, result))

    def _generate(self, part: Sequence[Task], report: Report) -> list[list[Result]]:
        pipe = self._models[part[0].job.model]
        reporter = make_reporter(pipe, part, report)
        if part[0].is_ranked:
            return [pipe.generate_best(part[0].request, reporter, self.limit(part[0]))]
        return [[result] for result in pipe.generate_batch([task.request for task in part], reporter)]

    def _split(self, part: list[Task], error: Exception, report: Report) -> list[list[Task]]:
        """The parts in which to try again; none if it is of no use, which is reported."""
        together = min(self.limit(part[0]), part[0].count) if part[0].is_ranked else len(part)
        out_of_memory = is_out_of_memory(error)
        half = (together + 1) // 2
        if out_of_memory:
            self.out_of_memory += 1
            free_memory(error)
        if together == 1 or part[0].is_ranked and not out_of_memory:
            for task in part:
                report(task.job, Failed(error))
            return []
        if out_of_memory:
            self._limits[part[0].job.model, part[0].request.mode] = half
        return [part] if part[0].is_ranked else [part[:half], part[half:]]


class Reporter:
    """A Progress that reports the steps to the jobs of a micro-batch, and stops when all of them are cancelled."""

    def __init__(self, tasks: Sequence[Task], report: Report) -> None:
        self._report = report
        self._jobs = list(dict.fromkeys(task.job for task in tasks))

    def __call__(self, stage: str, done: int, total: int) -> None:
        if all(job.cancelled for job in self._jobs):
            raise Cancelled
        for job in self._jobs:
            if job.interest.steps and not job.cancelled:
                self._report(job, Step(stage, done, total))


class PreviewReporter(Watcher):
    """A Reporter that also reports previews, spread evenly over the steps of the decoder.

    The images of a step come with their seeds, so the tasks that want previews must have seeds of their own.
    """

    def __init__(self, pipe: Pipeline, tasks: Sequence[Task], report: Report) -> None:
        self._steps = Reporter(tasks, report)
        self._report = report
        self._pipe = pipe
        self._edits: dict[Task, EditPreview] = {}
        self._tasks = {task.request.seed: task for task in tasks if task.job.interest.previews}
        self._sent = dict.fromkeys(self._tasks.values(), 0)
        self._images: dict[int, Image.Image] = {}

    def see(self, stage: str, images: Sequence[Image.Image], seeds: Sequence[int]) -> None:
        self._images = dict(zip(seeds, images, strict=True))

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._steps(stage, done, total)
        if done and stage.endswith("decoder"):
            for task in self._tasks.values():
                self._send(task, stage, done / total)
        self._images = {}

    def _send(self, task: Task, stage: str, fraction: float) -> None:
        """Report the image of a step, if one is due: the k-th of n previews after k / (n + 1) of the steps."""
        image = None if task.request.seed is None else self._images.get(task.request.seed)
        wanted, sent = task.job.interest.previews, self._sent[task]
        if image is None or sent == wanted:
            return
        if task.request.edits_canvas:
            if task not in self._edits:
                self._edits[task] = EditPreview(self._pipe.model, task.request)
            fraction = self._edits[task].fraction_done(stage, fraction, image.size)
        if fraction * (wanted + 1) >= sent + 1:
            self._sent[task] += 1
            image = self._edits[task].place(stage, image) if task in self._edits else image
            self._report(task.job, Preview(task.index, sent, stage, image))


def make_reporter(pipe: Pipeline, tasks: Sequence[Task], report: Report) -> Progress:
    """The callback of a micro-batch. Images of steps are made only if somebody wants them."""
    if any(task.job.interest.previews for task in tasks) and not tasks[0].is_ranked:
        return PreviewReporter(pipe, tasks, report)
    return Reporter(tasks, report)


def free_memory(error: BaseException) -> None:
    """Return the memory of a micro-batch that failed with an error, so that a smaller one finds room."""
    found: BaseException | None = error
    while found is not None:  # the frames of a traceback hold their tensors
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__
    gc.collect()
    release_cached_memory()


def micro_batch(waiting: Sequence[Task], size: int, can_share: Callable[[Task, Task], bool]) -> Iterator[Task]:
    """The first of the waiting tasks, and those after it that can share a micro-batch with it: at most `size`."""
    first, *others = waiting
    yield first
    if first.is_ranked:
        return
    count, seeds, previewed = 1, {first.request.seed}, bool(first.job.interest.previews)
    for other in others:
        if count == size:
            return
        previewed_with = previewed or other.job.interest.previews > 0
        if other.is_ranked or not can_share(first, other) or previewed_with and other.request.seed in seeds:
            continue
        yield other
        count, previewed = count + 1, previewed_with
        seeds.add(other.request.seed)
