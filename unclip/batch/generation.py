"""Generate micro-batches as image files, with the failure of one image kept from the others."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from unclip.batch.file_names import NameTemplate
from unclip.batch.jobs import Job, name_values
from unclip.batch.moved_lines import source_name
from unclip.batch.output_folder import ImageFile
from unclip.checkpoints.identity import ModelIdentity
from unclip.errors import UnclipError, WriteError, is_out_of_memory
from unclip.images import metadata
from unclip.images.result import record
from unclip.inference.callbacks import Progress
from unclip.requests.batching import BATCH
from unclip.requests.request import Request
from unclip.version import __version__

if TYPE_CHECKING:
    from unclip.images.result import Result

Outcome = tuple[Job, ImageFile | str]
"""A job, and its image or the reason why there is none."""


class Pipeline(Protocol):
    """The methods of `pipeline.Unclip` that generation needs."""

    def resolve(self, request: Request) -> Request: ...
    def generate_batch(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]: ...
    def generate_best(
        self, request: Request, progress: Progress | None = None, batch_size: int = BATCH
    ) -> list[Result]: ...


class Engine(Protocol):
    """Generates micro-batches, in this process or in others."""

    def run(self, batches: Iterable[Sequence[Job]]) -> Iterator[list[Outcome]]:
        """The outcomes of all jobs, in any order. Takes a micro-batch from `batches` only when it can begin with it."""
        ...


@dataclass(frozen=True)
class Output:
    """The naming and the format of the images. source: name of the prompt file, for error messages."""

    source: str
    name: NameTemplate
    format: str = "png"


class LocalEngine:
    """Generates with a pipeline in this process.

    progress: called with each denoising step; a Watcher also receives the images. note: called with a message for the
    user. batch_size: images at a time.
    """

    def __init__(
        self,
        pipe: Pipeline,
        model: ModelIdentity,
        output: Output,
        batch_size: int = BATCH,
        progress: Progress | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._pipe = pipe
        self._model = model
        self._output = output
        self._progress = progress
        self._note = note
        self._limit = batch_size  # images that memory has room for

    def run(self, batches: Iterable[Sequence[Job]]) -> Iterator[list[Outcome]]:
        """The outcomes, micro-batch by micro-batch. Raises WriteError if a preview cannot be written."""
        for batch in batches:
            yield from self.generate(batch)

    def generate(self, batch: Sequence[Job]) -> Iterator[list[Outcome]]:
        """The outcomes of a micro-batch, all together or in parts.

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
                    yield [(job, describe_error(error)) for job in part]
                    continue
                if out_of_memory and half < self._limit:
                    self._limit = half
                    self._note(f"out of memory with {size} images at a time; continuing with {half}")
                waiting.extendleft([part] if ranked else [part[half:], part[:half]])
                continue
            yield [(job, self._encode(job, result)) for job, result in zip(part, results, strict=True)]

    def _generate_plain(self, jobs: Sequence[Job]) -> list[Result]:
        return self._pipe.generate_batch([self._pipe.resolve(job.request) for job in jobs], self._progress)

    def _generate_best(self, jobs: Sequence[Job]) -> list[Result]:
        """The images of one request with best_of. The candidates are generated once for all of them."""
        count = max(job.rank for job in jobs) + 1
        request = self._pipe.resolve(jobs[0].request.replace(n=count))
        ranking = self._pipe.generate_best(request, self._progress, self._limit)
        return [ranking[job.rank] for job in jobs]

    def _encode(self, job: Job, result: Result) -> ImageFile | str:
        """A result as an image file; the problem if there is one, for instance a record too long for the format."""
        try:
            return image_file(job, result, self._model, self._output)
        except Exception as error:
            return describe_error(error)


def image_file(job: Job, result: Result, model: ModelIdentity, output: Output) -> ImageFile:
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
        "revision": model.revision,
        **{name: made[name] for name in ("image_encoder", "prior", "loras") if name in made},
        "dtype": result.dtype,
        "version": __version__,
        "score": result.score,
        **({"ranked": list(result.ranked)} if result.ranked else {}),
        "timings": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
        "pixels": made["pixels"],
        "notes": list(result.notes),
        "columns": job.row.columns,
        "source": source_name(output.source),
        "content": f"{job.content:016x}",
        "key": job.key,
    }
    name = output.name.name(name_values(job, request, result.model), f".{output.format}")
    return ImageFile(name, metadata.image_bytes(result.image, made, output.format), entry)


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
