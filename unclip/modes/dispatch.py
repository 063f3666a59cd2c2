"""Dispatch: micro-batches of resolved requests to their mode, and its outputs to Results."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from unclip.images.inputs import input_hashes
from unclip.images.result import Result
from unclip.inference.callbacks import Progress
from unclip.inference.model import UnclipModel
from unclip.modes.base import make_run, resolved
from unclip.modes.notes import notes
from unclip.modes.registry import mode_of
from unclip.requests.batching import BATCH, micro_batches
from unclip.requests.request import Request


def generate(
    model: UnclipModel, requests: Iterable[Request], callback: Progress | None = None, batch_size: int = BATCH
) -> Iterator[Result]:
    """Generate the images of resolved requests, in micro-batches of images that differ only in prompt, seed and inputs.

    A request with best_of yields its n best candidates, best first.
    """
    waiting: list[Request] = []
    for request in requests:
        if request.best_of is None:
            waiting.append(request)
            continue
        yield from _generate_plain(model, waiting, callback, batch_size)
        waiting = []
        yield from generate_best(model, request, callback, batch_size)
    yield from _generate_plain(model, waiting, callback, batch_size)


def _generate_plain(
    model: UnclipModel, requests: Sequence[Request], callback: Progress | None, batch_size: int
) -> Iterator[Result]:
    images = (image for request in requests for image in request.images())
    for batch in micro_batches(images, batch_size):
        yield from run_batch(model, batch, callback)


def generate_best(
    model: UnclipModel, request: Request, callback: Progress | None = None, batch_size: int = BATCH
) -> list[Result]:
    """The n results of a resolved request with best_of that have the highest scores, best first.

    Candidates with equal scores keep the order of their seeds. The request of each result is the candidate's own, which
    generates it again without the others.
    """
    results = list(_generate_plain(model, request.candidates(), callback, batch_size))
    ranking = sorted(results, key=lambda result: -resolved(result.score))
    scores = tuple(resolved(result.score) for result in ranking)
    # The images that are kept share the time of all candidates.
    seconds = {name: sum(result.timings[name] for result in results) / request.n for name in results[0].timings}
    return [replace(result, ranked=scores, timings=seconds) for result in ranking[: request.n]]


@torch.inference_mode()
def run_batch(model: UnclipModel, batch: Sequence[Request], callback: Progress | None = None) -> list[Result]:
    """One Result per request. batch: resolved requests of one image each that `micro_batches` put together."""
    run = make_run(model, batch, callback)
    inputs = [input_hashes(request) for request in batch]  # now: the output may replace an input
    outputs = mode_of(batch[0]).generate(model, batch, run)
    seconds = {stage: total / len(batch) for stage, total in run.timings.items()}
    return [
        Result(
            image=output.image,
            request=request,
            seed=resolved(request.seed),
            model=model.name,
            revision=model.revision,
            image_encoder=model.image_encoder,
            prior=model.prior_name,
            loras=model.loras,
            score=output.score,
            timings=seconds,
            notes=(*notes(model, request), *output.notes),
            dtype=model.dtype,
            inputs=hashes,
        )
        for request, output, hashes in zip(batch, outputs, inputs, strict=True)
    ]
