"""Run a network without norms on a large image tile by tile, with the same result as on the whole."""

from collections.abc import Callable

import torch
from torch import Tensor


def run_in_tiles(network: Callable[[Tensor], Tensor], x: Tensor, tile: tuple[int, int], margin: int) -> Tensor:
    """What `network` returns for x `b c h w`: `b d h w`. Its memory is that of one tile, however large x is.

    tile: largest height and width of a tile. margin: positions around a tile that the network sees too: at least its
    receptive field's reach, and with `tile` a multiple of the factor by which it shrinks x.
    """
    height, width = x.shape[-2:]
    if height <= tile[0] and width <= tile[1]:
        return network(x)
    whole = None
    for rows, seen_rows in _spans(height, tile[0], margin):
        for columns, seen_columns in _spans(width, tile[1], margin):
            part = network(x[..., seen_rows, seen_columns])
            if whole is None:
                layout = torch.channels_last if part.is_contiguous(memory_format=torch.channels_last) else None
                whole = torch.empty(
                    (*part.shape[:2], height, width),
                    dtype=part.dtype,
                    device=part.device,
                    memory_format=torch.contiguous_format if layout is None else layout,
                )
            whole[..., rows, columns] = part[..., _within(rows, seen_rows), _within(columns, seen_columns)]
    assert whole is not None
    return whole


def _spans(length: int, side: int, margin: int) -> list[tuple[slice, slice]]:
    """The parts of a length, of at most `side` each, and what the network sees for each."""
    starts = range(0, length, side)
    ends = [min(start + side, length) for start in starts]
    return [
        (slice(start, end), slice(max(0, start - margin), min(length, end + margin)))
        for start, end in zip(starts, ends, strict=True)
    ]


def _within(part: slice, seen: slice) -> slice:
    """A part, counted from the start of what is seen."""
    return slice(part.start - seen.start, part.stop - seen.start)
