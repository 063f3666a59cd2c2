"""One micro-batch on its way through the stages: its generators, options, callbacks and timings."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def timed(timings: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    """Add the seconds that it takes to those of a stage: an edit passes one once a window."""
    start = time.perf_counter()
    yield
    if device.type == "cuda":  # which answers before it has computed
        torch.cuda.synchronize(device)
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - start
