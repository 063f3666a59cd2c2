"""The processes that share a run, as torchrun, `accelerate launch` or `--processes` start them.

Messages between them travel over gloo on the CPU, also beside a GPU's NCCL: gloo notices at once that a process ended.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from unclip.errors import InputError, ProcessError, TrainingError, UnclipError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")

ERRORS = "UNCLIP_ERRORS"
"""Environment variable of a process that `launcher` has started: the folder that receives its error."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "gloo", "NCCL")
"""Parts of torch's messages when another process has ended."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    rank: the number of this one, from 0; the first is the main process. count: of all. local_rank: the number of this
    one on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    def current(cls) -> "Processes":
        """Those that the environment names; this one alone if it does not name all that torchrun does."""
        try:
            rank, count, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        except (KeyError, ValueError):
            return cls()
        return cls(rank, count, local_rank) if count > 1 else cls()

    def check(self) -> None:
        """Raise InputError if the environment names several processes in part: each would do all of the work."""
        if self.count == 1 and os.environ.get("WORLD_SIZE", "1") != "1":
            raise InputError(
                "WORLD_SIZE is set without RANK and LOCAL_RANK: start several processes by --processes, torchrun or "
                "accelerate launch"
            )

    @property
    def local_count(self) -> int:
        """The number of processes on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.local_rank + 1)) if self.count > 1 else 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def connect(self) -> None:
        """Meet the other processes over gloo, unless they have met. Training has accelerate do it.

        Raises InputError as `check` does.
        """
        self.check()
        if self.count > 1 and not _distributed().is_initialized():
            with _lost_as_error(), without_greetings():
                _distributed().init_process_group("gloo")

    def wait(self) -> None:
        """Return when all processes are here."""
        self.sum([0.0])

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums of values over all processes."""
        if self.count == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        with _lost_as_error():
            _distributed().all_reduce(total, group=_group())
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        return self.sum([flag]) != [0]

    def from_main(self, *values: float) -> list[float]:
        """Numbers and flags of the main process."""
        return self.sum([value if self.is_main else 0 for value in values])

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in their order: anything that can be pickled."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with _lost_as_error():
            _distributed().all_gather_object(found, value, group=_group())
        return found

    def gather_rows(self, rows: "Tensor") -> "Tensor":
        """The rows `b ...` of all processes, `(processes b) ...`, without gradients."""
        if self.count == 1:
            return rows
        import torch

        rows = rows.detach().contiguous()
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with _lost_as_error():
            _distributed().all_gather(parts, rows)
        return torch.cat(parts)

    def share(
        self, items: Sequence[T], compute: Callable[[T], R], track: Callable[[Sequence[T]], Iterable[T]] = iter
    ) -> list[R]:
        """What `compute` returns for each item, in order: the processes take turns with the items, and get all results.

        track: is given the items of this process, and yields them.
        """
        with self.shared_errors():
            own = [compute(item) for item in track(items[self.rank :: self.count])]
        found = self.gather(own)
        return [found[i % self.count][i // self.count] for i in range(len(items))]

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """What one process raises in the block, all raise at its end: none of them waits for one that failed."""
        if self.count == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except ProcessError:
            raise
        except Exception as caught:
            error = caught
        if not self.any(error is not None):
            return
        plain = error if error is None or isinstance(error, UnclipError) else TrainingError(f"{error!r}")
        first = next(each for each in self.gather(plain) if each is not None)
        if error is not None and not isinstance(error, UnclipError):
            raise error
        first.shared = True
        raise first from None


ALONE = Processes()


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process ended."""
    return isinstance(error, ProcessError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in LOST)
    )


@contextmanager
def _lost_as_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise ProcessError("another process of this run ended early") from None


def _distributed() -> Any:
    import torch.distributed

    return torch.distributed


@cache
def _group() -> Any:
    """The group for messages. All processes call this for the first time at the same point."""
    distributed = _distributed()
    if distributed.get_backend() == "gloo":
        return None
    with without_greetings():
        return distributed.new_group(backend="gloo")


@contextmanager
def without_greetings() -> Iterator[None]:
    """Within the block, nothing reaches standard output: as processes connect, the gloo of torch 2.10 writes there."""
    if sys.stdout is None:  # it is closed
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
