"""Ctrl-C that lets the current work finish first."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class StopOnInterrupt:
    """In this context, the first interrupt sets `requested` and calls `notify`; the second raises KeyboardInterrupt.

    Outside the main thread, where no signals arrive, it does nothing.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self.requested = False
        # In a thread: the interrupt may have come while the main thread was printing.
        self._notifier = threading.Thread(target=notify)
        self._previous: Any = None

    def __enter__(self) -> "StopOnInterrupt":
        with contextlib.suppress(ValueError):
            self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self.requested:
            self._notifier.join()
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._notifier.start()
