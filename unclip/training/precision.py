"""The precision of a run's activations, and the steps of its optimiser.

Weights, average and moments stay in float32. In float16, whose range is small, the loss is scaled: where a gradient
overflows, the step is passed over, and the scale is halved.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from unclip.system.device import has_native_bfloat16
from unclip.training.sharding import is_sharded, local

LEAST_SCALE = 1.0
"""Of the loss in float16: if gradients still overflow there, the run has diverged."""


class Precision:
    """dtype: of the activations; None is bfloat16 where `device` computes it in hardware, else float32."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None):
        if dtype is None:
            dtype = torch.bfloat16 if has_native_bfloat16(device) else torch.float32
        self.device, self.dtype = device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> AbstractContextManager[Any]:
        """In this context, networks compute in `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the weights, multiplied by the scale."""
        self.scaler.scale(loss).backward()

    def may_overflow(self) -> bool:
        """Whether an infinite gradient is the fault of the scale, which can still be lowered."""
        return self.scaler.is_enabled() and self.scaler.get_scale() >= LEAST_SCALE

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Let an optimiser make a step with gradients that `clip_gradients` has seen, unless one of them overflowed.

        Returns whether it made one.
        """
        scale = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        return self.scaler.get_scale() >= scale

    @torch.no_grad()
    def clip_gradients(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], limit: float
    ) -> float:
        """Shorten the gradients of all parameters, taken together, to the norm `limit`. Returns the norm they had."""
        self.scaler.unscale_(optimizer)
        used = [p for p in parameters if p.grad is not None]
        gradients = [local(p.grad) for p in used if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if any(map(is_sharded, used)):
            norm = self._sharded_norm(used, gradients)
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))  # pyright: ignore
        return norm.item()

    def _sharded_norm(self, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> Tensor:
        """The norm of gradients of which this process holds the parts `gradients`."""
        parts = [gradient for p, gradient in zip(parameters, gradients, strict=True) if is_sharded(p)]
        others = [gradient for p, gradient in zip(parameters, gradients, strict=True) if not is_sharded(p)]
        square = torch.nn.utils.get_total_norm(parts).square()
        torch.distributed.all_reduce(square)
        return (square + torch.nn.utils.get_total_norm(others).square()).sqrt()
