"""Denoise a large batch in chunks, so that memory does not grow with the batch."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction

DenoiserOf = Callable[[slice], Denoise]
"""Makes the denoiser for a slice of the batch."""


def chunked(denoiser_of: DenoiserOf, count: int, chunk_size: int) -> Denoise:
    """A denoiser of a batch of `count` that passes at most `chunk_size` rows to the network at a time."""
    chunks = split_batch(denoiser_of, count, chunk_size)

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        return join_predictions([denoise_chunk(x[rows], t[rows]) for rows, denoise_chunk in chunks()], torch.cat)

    return denoise


def split_batch(denoiser_of: DenoiserOf, count: int, chunk_size: int) -> Callable[[], Iterator[tuple[slice, Denoise]]]:
    """A function that iterates over the chunks of a batch: the rows of each, and their denoiser.

    A single chunk's denoiser is made once. Several are made again at each step, so that only one is held in memory.
    """
    if count <= chunk_size:
        whole = slice(count), denoiser_of(slice(count))
        return lambda: iter([whole])
    chunks = [slice(first, min(first + chunk_size, count)) for first in range(0, count, chunk_size)]
    return lambda: ((rows, denoiser_of(rows)) for rows in chunks)


def join_predictions(predictions: Sequence[Prediction], join: Callable[[list[Tensor]], Tensor]) -> Prediction:
    """One prediction from the predictions of all chunks; `join` combines their tensors."""
    variances = [p.variance for p in predictions if p.variance is not None]
    x0 = join([p.x0 for p in predictions])
    return Prediction(x0, join(variances) if variances else None)
