"""Reuse of a computation whose inputs are equal at every denoising step."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class LastResult:
    """Keeps the result for the last tensors, until others arrive. Tensors are compared by identity, not by value.

    Only in inference mode: training has other inputs, and gradients, at each step, and its weights change.
    """

    def __init__(self) -> None:
        # Inputs and result in one attribute, so that threads replace and read them atomically.
        self._last: tuple[tuple[weakref.ref[Tensor], ...], Any] | None = None

    def __getstate__(self) -> dict[str, None]:
        return {"_last": None}  # a weak reference cannot be pickled

    def of(self, compute: Callable[..., Result], *inputs: Tensor) -> Result:
        """compute(*inputs), or its result from before."""
        # A weak reference would break a compiled graph.
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return compute(*inputs)
        last = self._last
        if last is not None and all(ref() is x for ref, x in zip(last[0], inputs, strict=True)):
            return last[1]
        result = compute(*inputs)
        self._last = tuple(map(weakref.ref, inputs)), result
        return result
