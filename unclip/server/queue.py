"""The queue: calls wait in the event loop, and share micro-batches that one worker generates."""

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial

from unclip.requests.batching import can_share_batch
from unclip.requests.request import Request
from unclip.server.errors import ApiError, api_error, shutting_down, too_busy
from unclip.server.generation import Generator, Pipeline, micro_batch
from unclip.server.jobs import Event, Failed, Finished, Interest, Job, Preview, Step, Task
from unclip.server.memory import Memory
from unclip.server.metrics import Metrics
from unclip.server.settings import ServerSettings
from unclip.server.worker import Worker

LOG = logging.getLogger("unclip.server")
MAX_WAITS = 5
"""Bounds the time that a micro-batch waits while calls keep arriving, in multiples of `batch_wait`.

On a CPU, a micro-batch of one image takes about as long as ten more images add to it, so another micro-batch for calls
that come a moment later costs more than the wait.
"""

MAX_UNREAD = 32
"""Events that wait for a client that is slow to read, from which on it misses steps and previews."""


class Queue:
    """The jobs that wait or run. All methods belong to the event loop; only the worker's thread touches the models.

    Jobs take turns: a job whose images do not all fit into a micro-batch goes to the end of the line.
    """

    def __init__(
        self,
        models: Mapping[str, Pipeline],
        worker: Worker,
        settings: ServerSettings,
        metrics: Metrics,
        memory: Memory,
    ) -> None:
        self._generator = Generator(models, settings.batch_size)
        self._worker = worker
        self._settings = settings
        self._metrics = metrics
        self._memory = memory
        self._waiting: list[Task] = []
        self._since: dict[Task, float] = {}
        self._open: dict[Job, int] = {}  # results that each job still waits for
        self._unreleased: set[Job] = set()
        self._arrived = asyncio.Event()
        self._closed = False
        self._seconds = 1.0  # per image, a moving average
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to generate. The event loop must run."""
        self._loop = asyncio.get_running_loop()
        self._loop_task = asyncio.create_task(self._schedule())
        self._loop_task.add_done_callback(self._end)

    @property
    def images(self) -> int:
        """The number of images that wait or run, with all candidates of a best_of."""
        return sum(left if job.request.best_of is None else job.count for job, left in self._open.items())

    def check_room(self) -> None:
        """Raise ApiError, before a call's body is read, if the queue is full or closed."""
        if self._closed:
            raise shutting_down()
        if self.images >= self._settings.queue_size:
            raise self._full()

    def submit(self, request: Request, model: str, interest: Interest, memory: int = 0) -> Job:
        """Queue a resolved request, until `release`. Raises ApiError if there is no room for it.

        interest: the events to report. memory: bytes of its decoded input images and its results.
        """
        job = Job(request, model, interest, memory)
        self.check_room()
        if self.images and self.images + job.count > self._settings.queue_size:
            raise self._full()
        self._memory.take(memory, always=not self._unreleased)
        self._unreleased.add(job)
        tasks = job.tasks()
        self._open[job] = job.request.count
        self._waiting += tasks
        self._since |= dict.fromkeys(tasks, time.monotonic())
        self._metrics.waiting.set(self.images)
        self._arrived.set()
        return job

    def cancel(self, job: Job) -> None:
        """Drop what is left of a job. A running micro-batch stops when all its jobs are cancelled."""
        if job in self._open:
            job.cancelled = True
            self._forget(job)

    def release(self, job: Job) -> None:
        """Drop what is left of a job, and its memory: its answer is sent, or its client has gone."""
        self.cancel(job)
        if job in self._unreleased:
            self._unreleased.remove(job)
            self._memory.give(job.memory)

    def close(self, cancel: bool = False) -> None:
        """Refuse new calls, and those that wait. The running micro-batch is finished, unless `cancel`."""
        self._closed = True
        self._arrived.set()
        for job in list(self._open) if cancel else dict.fromkeys(task.job for task in self._waiting):
            job.events.put_nowait(Failed(shutting_down()))
            self.cancel(job)

    def close_soon(self, cancel: bool = False) -> None:
        """`close`, from another thread. cancel: also what runs."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close, cancel)

    async def stop(self) -> None:
        """Close the queue and wait for the running micro-batch, whose jobs are cancelled."""
        self.close(cancel=True)
        if self._loop_task is not None:
            await asyncio.wait([self._loop_task])

    # ---- the scheduler

    @property
    def runs(self) -> bool:
        """Whether new jobs are generated: it was started, and is not closed."""
        return self._loop_task is not None and not self._closed

    def _end(self, scheduler: asyncio.Task[None]) -> None:
        """After the scheduler: if a bug ended it, refuse calls instead of letting them wait for ever."""
        if not scheduler.cancelled() and (error := scheduler.exception()) is not None:
            LOG.error("the queue failed", exc_info=error)
            self.close(cancel=True)

    async def _schedule(self) -> None:
        while not (self._closed and not self._waiting):
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            await self._wait_for_more()
            if self._waiting:
                await self._run(list(micro_batch(self._waiting, self._settings.batch_size, _can_share)))

    async def _wait_for_more(self) -> None:
        """Wait for calls to share the next micro-batch with: until it is full, or none has come for a moment."""
        deadline = time.monotonic() + MAX_WAITS * self._settings.batch_wait
        while len(self._waiting) < self._settings.batch_size and (left := deadline - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), min(self._settings.batch_wait, left))
            except TimeoutError:
                return

    async def _run(self, batch: list[Task]) -> None:
        start = time.monotonic()
        for task in batch:
            self._metrics.wait.observe(start - self._since[task])
        self._drop(batch)
        loop, out_of_memory = asyncio.get_running_loop(), self._generator.out_of_memory

        def report(job: Job, event: Event) -> None:
            loop.call_soon_threadsafe(self._deliver, job, event)

        try:
            await asyncio.wrap_future(self._worker.submit(partial(self._generator.run, batch, report)))
        except Exception as error:  # a bug of the server: the calls fail, and the next ones are served
            LOG.exception("a micro-batch failed")
            for task in batch:
                self._deliver(task.job, Failed(error))
        await asyncio.sleep(0)  # the last events
        self._waiting.sort(key=lambda task: task.job is batch[0].job)  # stable: what is left of this job comes last
        seconds, count = time.monotonic() - start, sum(task.count for task in batch)
        self._seconds += (seconds / count - self._seconds) * 0.2
        self._metrics.batch_seconds.observe(seconds)
        self._metrics.batch_size.observe(count)
        self._metrics.out_of_memory.inc(self._generator.out_of_memory - out_of_memory)

    def _deliver(self, job: Job, event: Event) -> None:
        """Pass an event to the client of a job. The first failure ends the job."""
        if job not in self._open or job.cancelled:
            return
        if isinstance(event, Step | Preview) and job.events.qsize() >= MAX_UNREAD:
            return
        job.events.put_nowait(event)
        if isinstance(event, Finished):
            self._count(job, "done", 1)
            self._open[job] -= 1
            if not self._open[job]:
                self._forget(job)
        elif isinstance(event, Failed):
            if api_error(event.error).status == 500:
                LOG.error("%s with %s failed", job.request.mode, job.model, exc_info=event.error)
            job.cancelled = True  # its other images are of no use
            self._count(job, "failed", 1)
            self._open[job] -= 1
            self._forget(job)

    def _forget(self, job: Job) -> None:
        """Drop what is left of a job."""
        if left := self._open.pop(job):
            self._count(job, "cancelled", left)
        self._drop([task for task in self._waiting if task.job is job])
        self._metrics.waiting.set(self.images)

    def _count(self, job: Job, outcome: str, images: int) -> None:
        self._metrics.images.labels(job.model, job.request.mode, outcome).inc(images)

    def _drop(self, tasks: list[Task]) -> None:
        """Remove tasks from those that wait."""
        dropped = set(tasks)
        self._waiting = [task for task in self._waiting if task not in dropped]
        for task in tasks:
            self._since.pop(task, None)

    def _full(self) -> ApiError:
        return too_busy(f"{self.images} images wait already; try again later", self.images * self._seconds / 2)


def _can_share(one: Task, other: Task) -> bool:
    return one.job.model == other.job.model and can_share_batch(one.request, other.request)
