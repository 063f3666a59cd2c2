"""Dropout that does not depend on how a batch is divided."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.training.batch import Batch


class WholeBatchDropout:
    """Lets the dropout layers of a network draw for the whole batch, as one process would, and keep a part's rows.

    They draw from torch's global generator, which every part of a step finds in the same state.
    """

    def __init__(self, network: nn.Module) -> None:
        self.part: Batch | None = None
        """The part that is computed. Set it before the network runs."""
        for module in network.modules():
            if isinstance(module, nn.Dropout) and module.p > 0:
                module.forward = partial(self._drop, module)  # pyright: ignore[reportAttributeAccessIssue]

    def _drop(self, module: nn.Dropout, values: Tensor) -> Tensor:
        if not module.training or self.part is None:
            return F.dropout(values, module.p, module.training)
        rows = self.part.count * len(values) // len(self.part)
        kept = values.new_ones(rows, *values.shape[1:])
        if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
            kept = kept.contiguous(memory_format=torch.channels_last)  # the order in which it is filled
        return values * self.part.own_rows(F.dropout(kept, module.p))
