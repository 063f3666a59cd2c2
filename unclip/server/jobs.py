"""Jobs: the calls of clients, split into images; and the events that a client waits for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from PIL import Image

from unclip.images.result import Result
from unclip.requests.request import Request


@dataclass(frozen=True)
class Step:
    """A denoising step of the micro-batch that a job is part of: the stage, and the steps done of `total`."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Preview:
    """An image that is not finished. index: of the image in its job. number: of previews of it before this one."""

    index: int
    number: int
    stage: str
    image: Image.Image


@dataclass(frozen=True)
class Finished:
    """A finished image. index: of the image in its job."""

    index: int
    result: Result


@dataclass(frozen=True)
class Failed:
    """An image that could not be generated."""

    error: Exception


Event = Step | Preview | Finished | Failed


@dataclass(frozen=True)
class Interest:
    """The events that a client wants beside its images. previews: of each image; 0: none."""

    steps: bool = False
    previews: int = 0


@dataclass(eq=False)
class Job:
    """One call of a client.

    request    resolved; all images of the job are of it
    model      name of the model
    interest   the events to report
    memory     bytes of its decoded input images and its results
    cancelled  set when its client has gone; read by the worker's thread
    """

    request: Request
    model: str
    interest: Interest = Interest()
    memory: int = 0
    cancelled: bool = False
    events: "asyncio.Queue[Event]" = field(default_factory=asyncio.Queue)

    @property
    def count(self) -> int:
        """The number of images that are generated, with the candidates that are not kept."""
        return max(self.request.count, self.request.best_of or 0)

    def tasks(self) -> "list[Task]":
        """The parts that are scheduled: single images, or with best_of all candidates at once."""
        if self.request.best_of is not None:
            return [Task(self, 0, self.request)]
        return [Task(self, index, request) for index, request in enumerate(self.request.images())]

    async def results(self) -> list[Result]:
        """All images, in order. Raises the error of the first one that fails."""
        found: dict[int, Result] = {}
        async for event in self:
            if isinstance(event, Finished):
                found[event.index] = event.result
        return [found[index] for index in sorted(found)]

    async def __aiter__(self) -> AsyncIterator[Event]:
        """The events until all images are finished. Raises the error of the first image that fails."""
        left = self.request.count
        while left:
            event = await self.events.get()
            if isinstance(event, Failed):
                raise event.error
            left -= isinstance(event, Finished)
            yield event


@dataclass(frozen=True, eq=False)
class Task:
    """A part of a job that is generated as a whole. index: of its first image in the job."""

    job: Job
    index: int
    request: Request

    @property
    def is_ranked(self) -> bool:
        """Whether these are all candidates of a request with best_of, which share no micro-batch with others."""
        return self.request.best_of is not None

    @property
    def count(self) -> int:
        """The number of images that are generated for it."""
        return self.request.best_of or 1
