"""Load batches from a dataset: order, worker processes and errors."""

import itertools
import signal
from collections.abc import Callable, Generator, Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from unclip.errors import DataError, TrainingError
from unclip.system.interrupts import SIGNALS
from unclip.system.processes import ALONE, Processes
from unclip.training.data.datasets import read_sample
from unclip.training.data.decode import Sample

_Read = tuple[Sample, list[str]]
_Batch = tuple[
    torch.Tensor, list[str], list[torch.Tensor], list[str]
]  # images b 3 h w, captions, [layouts b l], skipped


class _ErrorsAsValues(Dataset):
    """A dataset that returns DataErrors: an error raised in a worker process would come wrapped in a traceback."""

    def __init__(self, dataset: Dataset[Sample], skip_bad: bool):
        self.dataset, self.skip_bad = dataset, skip_bad

    def __getitem__(self, index: int) -> _Read | DataError:
        try:
            return read_sample(self.dataset, index, self.skip_bad)
        except DataError as error:
            return DataError(str(error))


class _ConsecutiveBatches:
    """An endless batch sampler: batch k holds the indices [k b, (k + 1) b), starting at k = start.

    Each process has an equal part of every batch, in the order of the processes.
    """

    def __init__(self, batch_size: int, start: int, processes: Processes):
        self.batch_size, self.start = batch_size, start
        self.rank, self.own = processes.rank, batch_size // processes.count

    def __iter__(self) -> Iterator[list[int]]:
        for k in itertools.count(self.start):
            first = k * self.batch_size + self.rank * self.own
            yield list(range(first, first + self.own))


def _collate(samples: list[_Read | DataError]) -> _Batch | DataError:
    images, captions, layouts, skipped = [], [], [], []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        (image, caption, *layout), errors = sample
        images.append(image)
        captions.append(caption)
        layouts += layout
        skipped += errors
    return torch.stack(images), captions, [torch.stack(layouts)] if layouts else [], skipped


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # A terminal signals the whole process group. A worker ignores the first signal, because the training loop still
    # needs its last batch before it saves the state and stops the workers; a second signal ends the worker at once.
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: signal.signal(number, signal.SIG_DFL))


def batches(
    dataset: Dataset[Sample],
    batch_size: int,
    start_step: int = 0,
    workers: int = 0,
    on_skip: Callable[[str], None] | None = None,
    processes: Processes = ALONE,
) -> Generator[tuple[torch.Tensor, list[str], *tuple[torch.Tensor, ...]], None, None]:
    """Yield endless batches (images uint8 `b 3 h w`, captions), starting at batch number `start_step`.

    Samples with layouts add these, `b l`. Batch k holds the indices [k b, (k + 1) b) of the dataset for any number of
    worker processes. Each worker prefetches two batches; with 0 workers a batch is loaded when it is needed. processes:
    each loads its own part of every batch; `batch_size` is a multiple of their number. on_skip: receives a line for
    each sample that cannot be read, and which another one replaces; without it, such a sample raises DataError. Raises
    TrainingError if a worker process is killed.
    """
    loader = DataLoader(
        _ErrorsAsValues(dataset, skip_bad=on_skip is not None),
        batch_sampler=_ConsecutiveBatches(batch_size, start_step, processes),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(0),  # by default the loader uses torch's global generator
    )
    source = iter(loader)
    while True:
        try:
            batch = next(source)
        except (RuntimeError, EOFError, OSError) as failure:
            # A worker that is killed while it hands a batch over shows as a closed connection.
            is_closed = workers > 0 and isinstance(failure, EOFError | ConnectionError | FileNotFoundError)
            if not is_closed and "DataLoader worker (pid" not in str(failure):
                raise
            batch = TrainingError(
                "a process that loads data was killed, probably for want of memory: set fewer workers, or a smaller "
                "batch_size, in the recipe's fit table"
            )
        if isinstance(batch, Exception):
            break
        images, captions, layouts, skipped = batch
        if on_skip is not None:
            for line in skipped:
                on_skip(line)
        yield images, captions, *layouts
    del source  # ends the workers, which the error's traceback would keep alive
    raise batch
