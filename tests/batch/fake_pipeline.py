"""A pipeline that needs no torch: each image has one colour, which its prompt and seed determine."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from unclip.errors import RequestError, UnclipError
from unclip.images.result import Result
from unclip.inference.callbacks import Progress, Watcher
from unclip.requests.request import Request


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's own."""


class FakePipeline:
    """The methods of Unclip that a batch needs.

    A prompt with "bad" in it cannot be generated, alone or in a batch; one with "refused" cannot be resolved. More than
    `room` images at a time are too many. `batches` has the size of each micro-batch, `generated` the prompt and seed of
    each image.
    """

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.batches: list[int] = []
        self.generated: list[tuple[str, int | None]] = []

    def resolve(self, request: Request) -> Request:
        if "refused" in request.prompt:
            raise RequestError("prompt is refused; write another one")
        return request.resolved(size=(8, 8), steps=4, sampler="ddim", guidance=1.0)

    def check(self, request: Request) -> None:
        self.resolve(request)

    def output_size(self, request: Request) -> tuple[int, int]:
        size = self.resolve(request).size
        assert size is not None
        return size

    def generate_batch(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        self.batches.append(len(requests))
        if len(requests) > self.room:
            raise OutOfMemoryError("no room")
        if any("bad" in request.prompt for request in requests):
            raise UnclipError("the image is not finite: use a lower guidance")
        if isinstance(progress, Watcher):
            seeds = [request.seed or 0 for request in requests]
            progress.see("decoder", [Image.new("RGB", (8, 8))] * len(requests), seeds)
        self.generated += [(request.prompt, request.seed) for request in requests]
        return [_result(request) for request in requests]

    def generate_best(self, request: Request, progress: Progress | None = None, batch_size: int = 16) -> list[Result]:
        candidates = request.candidates()
        results: list[Result] = []
        for start in range(0, len(candidates), batch_size):
            results += self.generate_batch(candidates[start : start + batch_size], progress)
        ranking = sorted(results, key=lambda result: -(result.score or 0))
        scores = tuple(result.score or 0 for result in ranking)
        return [replace(result, ranked=scores) for result in ranking[: request.n]]


def _result(request: Request) -> Result:
    digest = hashlib.sha256(f"{request.prompt} {request.seed}".encode()).digest()
    assert request.size is not None and request.seed is not None
    return Result(
        image=Image.new("RGB", request.size, (digest[0], digest[1], digest[2])),
        request=request,
        seed=request.seed,
        model="fake",
        score=digest[3] / 256,
        timings={"prior": 0.5},
    )


if __name__ == "__main__":  # FILE DIR BATCH CALL [session]: run a file, and be killed at the CALL-th system call
    import os
    import signal

    file, out, batch, call = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sys.modules["torch"] = None  # type: ignore[assignment]  # a batch itself never imports it
    left = [call]

    def deadly(real):
        def called(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return called

    for name in ("fsync", "link", "replace", "unlink", "rename"):
        setattr(os, name, deadly(getattr(os, name)))
    if sys.argv[5:]:
        from pathlib import Path

        from tests.batch import test_progress
        from unclip.batch import progress, session

        session.BLOCK, progress.SAVE_EVERY = test_progress.ROWS, 0
        test_progress.run(Path(file), out, FakePipeline(), batch_size=batch)
    else:
        from tests.batch.test_runner import run_file

        run_file(FakePipeline(), file, out, batch)
