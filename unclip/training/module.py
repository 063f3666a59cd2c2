"""A training task as a module whose forward pass is the loss, alone or in one of several processes.

Losses use weights outside of the network's own forward pass: the statistics of embeddings, an embedding of no image, a
network's `condition`. As part of a module that computes the whole loss, all of them take part in what several processes
do with gradients (DDP) and with shards of weights (FSDP).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unclip.system.processes import Processes
from unclip.training.batch import Batch
from unclip.training.sharding import Sharding, is_sharded, shard, whole_weights
from unclip.training.tasks.base import Loss, Task


class LossModule(nn.Module):
    """The loss of a task as a module. compiled: compile the network."""

    def __init__(self, task: Task, compiled: bool = False):
        super().__init__()
        self.network = task.network
        network: Any = torch.compile(task.network) if compiled else task.network
        # A function, because a compiled network is a module, whose weights would count twice.
        self._loss = lambda batch: task.loss(network, batch)

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch, and its figures."""
        return self._loss(batch)


class ParallelLoss:
    """The loss of a task in each of several processes, with gradients averaged over all.

    sharding: divide the weights; None keeps all of them in every process.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        processes: Processes,
        sharding: Sharding | None = None,
        compiled: bool = False,
    ):
        self.processes = processes
        self.sharding = sharding
        self.module: nn.Module = LossModule(task, compiled)
        if sharding is not None:
            self.module.to(device)
            shard(self.module, sharding, device, processes.count)
        else:
            self.module.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.scalars = [p for p in self.module.parameters() if p.requires_grad and not is_sharded(p)]
        self.wrapped = self.module
        if sharding is None and processes.count > 1:
            # Of some networks not all weights take part. Buffers are constant.
            ids = None if device.type == "cpu" else [device]
            self.wrapped = DistributedDataParallel(
                self.module, device_ids=ids, static_graph=True, broadcast_buffers=False
            )

    def __call__(self, batch: Batch) -> Loss:
        """The loss of this process's part of a batch, and its figures."""
        return self.wrapped(batch)

    def without_averaging(self) -> AbstractContextManager[None]:
        """In this context, gradients are added up in this process only.

        Not those of sharded weights: whole gradients take the memory that sharding saves.
        """
        if isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return nullcontext()

    def average_scalars(self) -> None:
        """Average the gradients of the weights that are not sharded although others are."""
        if self.sharding is None:
            return
        for parameter in self.scalars:
            if parameter.grad is not None:
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.processes.count

    def whole_weights(self) -> AbstractContextManager[None]:
        """In this context, the network can be called in any of the processes, which all enter it together."""
        return nullcontext() if self.sharding is None else whole_weights(self.module, self.sharding)
