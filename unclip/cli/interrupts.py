"""Ctrl-C and SIGTERM for the whole program: at any moment, they end it with exit code 130 and one line.

Only the standard library's lightest modules are imported here: until `install` has run, an interrupt is Python's to
report, with a traceback.
"""

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # `typing` would take longer to import than all of this
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, NoReturn

EXIT_CODE = 130
MESSAGE = "unclip: interrupted"


class Interrupts:
    """The signal handler of the program.

    The first signal raises KeyboardInterrupt, so that files and locks are closed. A second one, and one during an
    import, ends the process itself: libraries turn a KeyboardInterrupt in their imports into other errors and into
    tracebacks.
    """

    def __init__(self) -> None:
        self._caught = self._reported = False

    def install(self) -> None:
        """Handle SIGINT and SIGTERM. A SIGINT that is ignored, as in a shell's background jobs, stays ignored."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        sys.unraisablehook = self._report_unraisable

    def report(self) -> None:
        """Print the line that says so."""
        self._reported = True
        print(MESSAGE, file=sys.stderr)

    def _interrupt(self, number: int, frame: "FrameType | None") -> None:
        if self._caught:
            self._end()
        self._caught = True
        if _is_importing(frame):
            self._end(clean_up=True)
        raise KeyboardInterrupt

    def _report_unraisable(self, unraisable: "Any") -> None:
        """Python drops exceptions in finalizers and callbacks; an interrupt must not be lost there."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._end(clean_up=True)
        sys.__unraisablehook__(unraisable)

    def _end(self, clean_up: bool = False) -> "NoReturn":
        try:
            if not self._reported:
                os.write(2, f"{MESSAGE}\n".encode())  # not `print`, which may be what was interrupted
            if clean_up:  # such as temporary folders
                sys.excepthook = lambda *_: None
                atexit._run_exitfuncs()
        finally:  # also if standard error is closed
            os._exit(EXIT_CODE)


def _is_importing(frame: "FrameType | None") -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
