"""Ctrl-C, SIGTERM and the end of a terminal that let the current work finish first."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
)


class StopOnInterrupt:
    """In this context, the first of SIGNALS sets `requested` and calls `notify`; the second stops at once.

    The second one goes to the handler of before, or raises KeyboardInterrupt where that was the system's default. A
    signal that the process ignores, as a shell's background jobs ignore SIGINT, stays ignored. Outside the main thread,
    where no signals arrive, nothing happens.
    """

    def __init__(self, notify: Callable[[], None] = lambda: None) -> None:
        self.requested = False
        # In a thread: the signal may have come while the main thread was printing.
        self._notifier = threading.Thread(target=notify)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopOnInterrupt":
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError):  # not the main thread
                    self._previous[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        if self.requested:
            self._notifier.join()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            previous = self._previous[number]
            if callable(previous):
                previous(number, frame)
            raise KeyboardInterrupt
        self.requested = True
        self._notifier.start()
