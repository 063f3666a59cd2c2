"""Jobs -> pictures in a folder, in micro-batches that survive what befalls one of their images."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unclip.batch.file_names import NameTemplate
from unclip.batch.jobs import Job, name_values
from unclip.batch.output_folder import Folder, Picture, disk_full
from unclip.batch.report import Report, Totals
from unclip.checkpoints.identity import Model
from unclip.errors import UnclipError, WriteError, is_out_of_memory
from unclip.images import metadata
from unclip.images.result import record
from unclip.inference.callbacks import Progress
from unclip.version import __version__

if TYPE_CHECKING:
    from unclip.front import Rankings
    from unclip.images.result import Result
    from unclip.pipeline import Unclip


WINDOW = 32  # micro-batches' worth of images that wait for others alike


@dataclass(frozen=True)
class Output:
    """How pictures are named and written; `source`: the prompt file, as errors are to name it."""

    source: str
    name: NameTemplate
    format: str = "png"


def run(
    pipe: Unclip,
    model: Model,
    jobs: Iterable[Job],
    folder: Folder,
    output: Output,
    report: Report,
    *,
    batch_size: int = 16,
    stop: Callable[[], bool] = lambda: False,
    watch: Progress | None = None,
) -> Totals:
    """Draw all jobs that the folder does not have yet. `stop` is asked before each micro-batch.

    watch: told of each step in the place of `report`; a Watcher sees the pictures too.

    A micro-batch of which a part is done is drawn as a whole, so that a resumed run computes what an uninterrupted one
    would have. Raises UnclipError if pictures cannot be written; what fails while it is drawn is reported only.
    """
    totals, limit = Totals(), [batch_size]
    known: Rankings = []
    for batch in grouped(jobs, batch_size):
        missing = {job.key for job in batch if not folder.is_done(job.key)}
        totals.skipped += len(batch) - len(missing)
        if not missing:
            continue
        if stop():
            totals.stopped = True
            break
        report.drawing([job for job in batch if job.key in missing])
        for drawn in draw(pipe, batch, limit, report, known, watch):
            wanted = [(job, outcome) for job, outcome in drawn if job.key in missing]
            pictures = []
            for job, outcome in wanted:
                if isinstance(outcome, Exception):
                    _failed(folder, report, output.source, job, outcome)
                    totals.failed += 1
                    continue
                try:
                    pictures.append((job, outcome, picture(job, outcome, model, output)))
                except Exception as error:  # too long a record for this format, say
                    _failed(folder, report, output.source, job, error)
                    totals.failed += 1
            try:
                paths = folder.add([written for _, _, written in pictures])
            except OSError as error:
                raise disk_full(error, folder.path) from error
            for (job, result, _), path in zip(pictures, paths, strict=True):
                if isinstance(path, OSError):
                    _failed(folder, report, output.source, job, path)
                    totals.failed += 1
                    continue
                report.image(str(path), result)
                totals.made += 1
    return totals


def grouped(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Micro-batches of jobs that can be drawn together, looking ahead over a bounded number of them.

    What they hold depends on the jobs and `size` alone.
    """
    waiting: deque[list[Job]] = deque()  # those alike; the one that has waited longest first
    count = 0
    for job in jobs:
        group = next((group for group in waiting if _alike(group[0], job)), None)
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
    yield from waiting


def draw(
    pipe: Unclip,
    batch: Sequence[Job],
    limit: list[int],
    report: Report,
    known: Rankings,
    watch: Progress | None = None,
) -> Iterator[list[tuple[Job, Result | Exception]]]:
    """Results of a micro-batch, or, for an image that cannot be drawn, the reason.

    A micro-batch that fails is drawn in halves, until the image that is to blame stands alone. Where memory is what
    was missing, `limit[0]`, the largest micro-batch from then on, is halved with it.
    """
    waiting = deque([list(batch)])
    while waiting:
        part = waiting.popleft()
        if len(part) > limit[0]:
            waiting.extendleft(reversed([part[i : i + limit[0]] for i in range(0, len(part), limit[0])]))
            continue
        try:
            requests = [pipe.resolve(job.request) for job in part]
            results = list(pipe.results([requests], report.step if watch is None else watch, limit[0], known))
        except WriteError:  # of a preview: the pictures would find no room either
            raise
        except Exception as error:  # whatever it is: a night's work must not end with one image
            memory = is_out_of_memory(error)
            if memory:
                _free_memory()
            if len(part) == 1:
                yield [(part[0], error)]
                continue
            half = (len(part) + 1) // 2
            if memory and half < limit[0]:
                limit[0] = half
                report.note(f"out of memory with {len(part)} images at a time; going on with {half}")
            waiting.extendleft([part[half:], part[:half]])
            continue
        yield list(zip(part, results, strict=True))


def picture(job: Job, result: Result, model: Model, output: Output) -> Picture:
    """A result as a file, named, and its line in the manifest."""
    made = record(result)
    request = result.request
    entry: dict[str, Any] = {
        "id": request.id,
        "line": job.row.line,
        "index": job.row.index,
        "image": job.image,
        "seed": result.seed,
        "request": request.to_dict(),
        "model": result.model,
        "revision": model.revision,
        **({"image_encoder": result.image_encoder} if result.image_encoder is not None else {}),
        "dtype": result.dtype,
        "version": __version__,
        "score": result.score,
        **({"ranked": list(result.ranked)} if result.ranked else {}),
        "timings": {stage: round(seconds, 4) for stage, seconds in result.timings.items()},
        "pixels": made["pixels"],
        "notes": list(result.notes),
        "columns": job.row.columns,
        "key": job.key,
    }
    suffix = f".{output.format}"
    name = output.name.name(name_values(job, request, result.model), suffix)
    return Picture(name, metadata.image_bytes(result.image, made, output.format), entry)


def problem_of(error: Exception) -> str:
    """An error as one line."""
    if is_out_of_memory(error):
        return "out of memory with one image at a time; use a smaller size, or --dtype bfloat16"
    text = " ".join(str(error).split())
    return text if isinstance(error, (UnclipError, OSError)) and text else f"{type(error).__name__}: {text}"


def _failed(folder: Folder, report: Report, source: str, job: Job, error: Exception) -> None:
    problem = problem_of(error)
    folder.error(
        {
            "file": source,
            "line": job.row.line,
            "index": job.row.index,
            "image": job.image,
            "field": None,
            "error": problem,
            "request": job.request.to_dict(),
            "columns": job.row.columns,
        }
    )
    report.failure(job, problem)


def _alike(one: Job, other: Job) -> bool:
    """Whether two can share a micro-batch, as the pipeline sees it."""
    from unclip.front import micro_batches

    return len(next(micro_batches([one.request, other.request], 2))) == 2


def _free_memory() -> None:
    """Hand the device's unused memory back, so that a smaller micro-batch finds room."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
