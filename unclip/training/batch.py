"""The batch of a training step, and the random numbers that belong to its rows.

A step has the same batch and the same random numbers however it is divided over processes and over parts that are
computed one after the other. So the same recipe gives the same loss curve on one process and on many.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from unclip.system.processes import ALONE, Processes

T = TypeVar("T")


class Batch:
    """The rows of a step's batch that this process computes at a time, with random numbers for them.

    All random numbers are drawn for the whole batch, in the same order in every process; each part keeps its own rows.

    images: `b 3 h w` in [-1, 1]. captions: `b`. generator: on the CPU, in the same state in every process.
    processes: that have an equal part of the batch each, in their order. layouts: `b l` of scenes that have them.
    """

    def __init__(
        self,
        images: Tensor,
        captions: list[str],
        generator: torch.Generator,
        processes: Processes = ALONE,
        layouts: Tensor | None = None,
    ) -> None:
        self.images = images
        self.captions = captions
        self.layouts = layouts
        self.processes = processes
        self.own = self
        """All that this process has of the batch; `self` unless it was divided by `parts`."""
        self.count = len(images) * processes.count
        """Rows of the whole batch."""
        self.number, self.divisions = 0, 1
        """The number of this part, and of how many."""
        self._rows = slice(processes.rank * len(images), (processes.rank + 1) * len(images))
        self._generator = generator
        self._made: list[Any] | None = None  # by `once`, for the parts after the first
        self._place = 0

    def __len__(self) -> int:
        return len(self.images)

    def parts(self, count: int) -> list["Batch"]:
        """The rows of this process in `count` equal parts."""
        if count == 1:
            return [self]
        made: list[Any] = []
        size = len(self) // count
        parts = []
        for number in range(count):
            first = number * size
            part = Batch(self.images[first : first + size], self.captions[first : first + size], self._generator)
            part.layouts = None if self.layouts is None else self.layouts[first : first + size]
            part.own, part.processes, part.count, part._made = self, self.processes, self.count, made
            part.number, part.divisions = number, count
            part._rows = slice(self._rows.start + first, self._rows.start + first + size)
            parts.append(part)
        return parts

    def once(self, make: Callable[[torch.Generator], T]) -> T:
        """What `make` returns, given the generator: values of the whole batch. It is called once for all parts."""
        if self._made is None:
            return make(self._generator)
        if self._place == len(self._made):
            self._made.append(make(self._generator))
        self._place += 1
        return self._made[self._place - 1]

    def own_rows(self, values: Tensor) -> Tensor:
        """Values of the whole batch, `n ...`, as `b ...` of this part. n may be a multiple of the batch's rows."""
        each = len(values) // self.count
        return values[self._rows.start * each : self._rows.stop * each]

    def rand(self, *shape: int, each: int = 1) -> Tensor:
        """Uniform random numbers `b *shape` on the CPU. each: numbers per row, `(b each) *shape`."""
        return self.own_rows(self.once(lambda generator: torch.rand(self.count * each, *shape, generator=generator)))

    def rand_columns(self, number: int) -> Tensor:
        """Uniform random numbers `number b` on the CPU."""
        drawn = self.once(lambda generator: torch.rand(number, self.count, generator=generator))
        return drawn[:, self._rows]

    def randint(self, low: int, high: int, each: int = 1) -> Tensor:
        """Random whole numbers `(b each)` from `low` up to, not including, `high`, on the CPU."""
        return self.own_rows(
            self.once(lambda generator: torch.randint(low, high, (self.count * each,), generator=generator))
        )

    def randn(self, *shape: int, each: int = 1) -> Tensor:
        """Normal random numbers `(b each) *shape` on the CPU."""
        return self.own_rows(self.once(lambda generator: torch.randn(self.count * each, *shape, generator=generator)))

    def randn_like(self, values: Tensor) -> Tensor:
        """Normal random numbers with the shape, the device and the type of values `(b each) ...` of this part."""
        return self.randn(*values.shape[1:], each=len(values) // len(self)).to(values)

    def all_images(self) -> Tensor:
        """The images of the whole batch, of all processes."""
        return self.once(lambda _: self.processes.gather_rows(self.own.images))
