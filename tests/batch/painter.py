"""A stand-in for a pipeline that needs no torch: pictures of one colour, which prompt and seed decide."""

import hashlib
import sys
from types import SimpleNamespace

from PIL import Image

from unclip.errors import RequestError, UnclipError
from unclip.images.result import Result
from unclip.inference.callbacks import Watcher
from unclip.requests.request import Request


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


class Painter:
    """`resolve` and `results` as Unclip has them.

    A prompt with "bad" in it cannot be drawn, alone or in a batch; more than `room` images at a time are too many.
    """

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.batches: list[int] = []

    def resolve(self, request: Request) -> Request:
        if "refused" in request.prompt:
            raise RequestError("prompt is refused; write another one")
        return request.resolved(size=(8, 8), steps=4, sampler="ddim", guidance=1.0)

    def picture_size(self, request: Request) -> tuple[int, int]:
        return self.resolve(request).size

    def check_towers(self, request: Request) -> None:
        """It has all that a request can need."""

    def results(self, batches, progress=None, batch_size=16, known=None):
        for batch in batches:
            self.batches.append(len(batch))
            if len(batch) > self.room:
                raise OutOfMemoryError("no room")
            if any("bad" in request.prompt for request in batch):
                raise UnclipError("the picture is not finite: use a lower guidance")
            if isinstance(progress, Watcher):
                progress.see("decoder", [Image.new("RGB", (8, 8))] * len(batch), [request.seed for request in batch])
            for request in batch:
                digest = hashlib.sha256(f"{request.prompt} {request.seed}".encode()).digest()
                image = Image.new("RGB", request.size, tuple(digest[:3]))
                yield Result(image=image, request=request, seed=request.seed, model="painter", timings={"prior": 0.5})


def micro_batches(requests, size):
    """As the pipeline's, for requests that differ in size and steps only."""
    batch = []
    for request in requests:
        if batch and (len(batch) == size or (batch[0].size, batch[0].steps) != (request.size, request.steps)):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def stand_in() -> SimpleNamespace:
    """What to put into `sys.modules` as "unclip.pipeline"."""
    return SimpleNamespace(micro_batches=micro_batches, Unclip=None)


if __name__ == "__main__":  # painter.py FILE DIR BATCH CALL: draw a file, and be killed at the CALL-th system call
    import os
    import signal

    file, out, batch, call = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sys.modules["unclip.pipeline"] = stand_in()
    left = [call]

    def deadly(real):
        def called(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return called

    for name in ("fsync", "link", "replace", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    from tests.batch.test_run import draw_file

    draw_file(Painter(), file, out, batch)
