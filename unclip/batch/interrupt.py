"""Ctrl-C that lets the work in hand be finished first."""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType


class StopOnInterrupt:
    """In this context the first interrupt sets `asked` and calls `told`; the second raises KeyboardInterrupt.

    Outside the main thread, where no signal arrives, it does nothing.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self.asked = False
        # A thread, since the interrupt may have come in the middle of what `told` is about to print to.
        self._teller = threading.Thread(target=told)
        self._before = None

    def __enter__(self) -> "StopOnInterrupt":
        with contextlib.suppress(ValueError):
            self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self.asked:
            self._teller.join()
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._teller.start()
