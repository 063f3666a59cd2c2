"""Load batches from a dataset: order, worker processes and errors."""

import itertools
import signal
from collections.abc import Generator, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from unclip.errors import DataError
from unclip.system.interrupts import SIGNALS
from unclip.training.data.decode import Sample


class _ErrorsAsValues(Dataset):
    """A dataset that returns DataErrors: an error raised in a worker process would come wrapped in a traceback."""

    def __init__(self, dataset: Dataset[Sample]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return self.dataset[index]
        except DataError as error:
            return DataError(str(error))


class _ConsecutiveBatches:
    """An endless batch sampler: batch k holds the indices [k b, (k + 1) b), starting at k = start."""

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
    # A terminal signals the whole process group. A worker ignores the first signal, because the training loop still
    # needs its last batch before it saves the state and stops the workers; a second signal ends the worker at once.
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: signal.signal(number, signal.SIG_DFL))


def batches(
    dataset: Dataset[Sample], batch_size: int, start_step: int = 0, workers: int = 0
) -> Generator[tuple[torch.Tensor, list[str]], None, None]:
    """Yield endless batches (images uint8 `b 3 h w`, captions), starting at batch number `start_step`.

    Batch k holds the indices [k b, (k + 1) b) of the dataset for any number of worker processes. Each worker prefetches
    two batches; with 0 workers a batch is loaded when it is needed. Raises DataError if a sample cannot be read.
    """
    loader = DataLoader(
        _ErrorsAsValues(dataset),
        batch_sampler=_ConsecutiveBatches(batch_size, start_step),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(0),  # by default the loader uses torch's global generator
    )
    error: DataError | None = None
    for batch in loader:
        if isinstance(batch, DataError):
            error = batch
            break  # raise below, after the workers have ended: a traceback would keep them alive
        yield batch
    assert error is not None, "batches do not end"
    raise error
