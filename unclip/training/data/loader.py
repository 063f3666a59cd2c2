"""Batches from a dataset: sampling order, worker processes and error handling."""

import itertools
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from unclip.errors import DataError
from unclip.training.data.decode import Sample


class _Guarded(Dataset):
    """Hands DataErrors on as values: raised inside a worker they would come out wrapped in a traceback."""

    def __init__(self, dataset: Dataset[Sample]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return self.dataset[index]
        except DataError as error:
            return DataError(str(error))


class _Consecutive:
    """Batch sampler: batch k is indices [k b, (k + 1) b), from k = start on, without end."""

    def __init__(self, batch_size: int, start: int):
        self.batch_size, self.start = batch_size, start

    def __iter__(self) -> Iterator[list[int]]:
        for k in itertools.count(self.start):
            yield list(range(k * self.batch_size, (k + 1) * self.batch_size))


def _collate(samples: list[Sample | DataError]) -> tuple[torch.Tensor, list[str]] | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    images, captions = zip(*samples, strict=True)
    return torch.stack(images), list(captions)  # b 3 h w


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # A terminal signals the whole group. The loop saves its state first, with what a worker still has to hand over,
    # and then ends the workers itself; a second signal ends them at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signal.signal(number, signal.SIG_DFL))


def batches(
    dataset: Dataset[Sample], batch_size: int, start_step: int = 0, workers: int = 0
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Endless batches (images uint8 `b 3 h w`, captions), the first of them number `start_step`.

    Batch k holds indices [k b, (k + 1) b) of the dataset whatever the number of worker processes, which
    prefetch two batches each (0: batches are made as they are asked for). Raises DataError when a sample
    cannot be read.
    """
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=_Consecutive(batch_size, start_step),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(0),  # else the loader draws from torch's global generator
    )
    for batch in loader:
        if isinstance(batch, DataError):
            break  # and raise out here, once the workers are gone: a traceback would keep them waiting
        yield batch
    raise batch
