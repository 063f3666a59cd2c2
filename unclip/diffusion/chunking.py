"""Denoise a large batch in chunks, so that memory does not grow with the batch."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from unclip.diffusion.denoiser import Denoise, Prediction


def in_parts(denoise_some: Callable[[slice], Denoise], count: int, together: int) -> Denoise:
    """Denoise a batch of `count`, `together` at a time, in what memory those take.

    denoise_some: makes what denoises some of the batch (see `parts_of`).
    """
    parts = parts_of(denoise_some, count, together)

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        predicted = [denoise_part(x[part], t[part]) for part, denoise_part in parts()]
        if len(predicted) == 1:
            return predicted[0]
        learned = predicted[0].variance is not None
        x0 = torch.cat([prediction.x0 for prediction in predicted])
        return Prediction(x0, torch.cat([prediction.variance for prediction in predicted]) if learned else None)

    return denoise


def parts_of(
    denoise_some: Callable[[slice], Denoise], count: int, together: int
) -> Callable[[], Iterator[tuple[slice, Denoise]]]:
    """A function that goes through the parts of a batch of `count`, and what denoises each.

    That is made once where there is one part, and else anew each time it comes, so that nothing is held for all.
    """
    if count <= together:
        whole = slice(count), denoise_some(slice(count))
        return lambda: iter([whole])
    parts = [slice(first, min(first + together, count)) for first in range(0, count, together)]
    return lambda: ((part, denoise_some(part)) for part in parts)
