"""Run a command in several processes of this machine, as torchrun does, with one line for what goes wrong.

torchrun restarts processes and works across machines; it reports a failure by its own table and by the traceback of
every process. Here the processes leave their errors to this one, which prints the cause.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

from unclip.errors import ProcessError, UnclipError
from unclip.system.interrupts import SIGNALS
from unclip.system.processes import ERRORS, Processes

PARENT = "UNCLIP_PARENT"
"""Environment variable of a started process: a pipe that closes when the process that started it ends."""
INTERRUPTED = 130
GRACE = 60.0
"""Seconds for the other processes to end by themselves, and to save what they have, after the first has failed."""
STOP = 10.0
"""Seconds from the signal that asks a process to end to the one that ends it."""


class Failure(NamedTuple):
    """The error that ended a process. lost: whether it ended because another one had."""

    message: str
    code: int
    lost: bool


def run_processes(command: Sequence[str], count: int) -> int:
    """Run a command in `count` processes, and return the exit code of the whole.

    The first signal is passed on, so that they save what they have; the second one ends them. Prints one line if they
    failed.
    """
    with tempfile.TemporaryDirectory(prefix="unclip-") as folder:
        port = _free_port()
        reader, writer = os.pipe()
        try:
            processes = [_start(command, rank, count, Path(folder), reader, port) for rank in range(count)]
            with _passing_on(processes) as signals:
                first = _wait(processes)
        finally:
            os.close(writer)
            os.close(reader)
        codes = [process.returncode for process in processes]
        if first is None:
            return 0
        if signals or INTERRUPTED in codes:
            return INTERRUPTED
        failure = _cause(codes, first, [_read(Path(folder) / f"{rank}.json") for rank in range(count)])
    if failure.message:
        print(f"unclip: error: {failure.message}", file=sys.stderr)
    return failure.code


def run_script(main: Callable[..., None]) -> None:
    """Call a script's `main` with its arguments; with `--processes N` among them, in N processes, as `Processes` share.

    Only the main process prints. Ends with the exit code 1 if several processes failed.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--processes", type=int, default=1)
    own, arguments = parser.parse_known_args()
    if own.processes < 1:
        parser.error(f"--processes must be at least 1, not {own.processes}")
    if own.processes > 1:
        sys.exit(run_processes([sys.executable, sys.argv[0], *arguments], own.processes))
    processes = Processes.current()
    processes.connect()
    try:
        with nullcontext() if processes.is_main else redirect_stdout(None):
            main(*arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except UnclipError as error:
        if not leave_error(str(error), 1, isinstance(error, ProcessError)):
            raise
        sys.exit(1)


def leave_error(message: str, code: int, lost: bool) -> bool:
    """Leave an error to the process that started this one. Returns False if none did, as this module does."""
    folder = os.environ.get(ERRORS)
    if folder is None:
        return False
    with suppress(OSError):
        path = Path(folder) / f"{os.environ['RANK']}.json"
        path.write_text(json.dumps({"message": message, "code": code, "lost": lost}))
    return True


def end_with_parent() -> None:
    """Let this process end, after it has saved what it has, when the process that started it ends in any way."""
    number = os.environ.get(PARENT)
    if number is None or not number.isdecimal():
        return

    def watch() -> None:
        with suppress(OSError):
            os.read(int(number), 1)  # returns when the other end is closed
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _start(command: Sequence[str], rank: int, count: int, folder: Path, pipe: int, port: int) -> subprocess.Popen[Any]:
    threads = max(1, (os.cpu_count() or 1) // count)
    own = {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), ERRORS: str(folder), PARENT: str(pipe)},
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    # In sessions of their own, so that a terminal's signals come from this process only.
    posix: dict[str, Any] = {} if sys.platform == "win32" else {"pass_fds": (pipe,), "start_new_session": True}
    return subprocess.Popen(command, env={**os.environ, **own}, **posix)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _wait(processes: Sequence[subprocess.Popen[Any]]) -> int | None:
    """Wait until all have ended, and return the number of the first that failed.

    If one fails, the others get some time, and are then ended.
    """
    first, since, asked = None, 0.0, False
    while any([process.poll() is None for process in processes]):  # noqa: C419 (all are polled)
        if first is None and (first := _failed(processes)) is not None:
            since = time.monotonic()
        waited = time.monotonic() - since
        if first is not None and waited > GRACE + STOP:
            _send(processes, getattr(signal, "SIGKILL", signal.SIGTERM))
        elif first is not None and waited > GRACE and not asked:
            _send(processes, signal.SIGTERM)
            asked = True
        time.sleep(0.05)
    return _failed(processes) if first is None else first


def _failed(processes: Sequence[subprocess.Popen[Any]]) -> int | None:
    return next((number for number, process in enumerate(processes) if process.returncode), None)


def _send(processes: Sequence[subprocess.Popen[Any]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


@contextmanager
def _passing_on(processes: Sequence[subprocess.Popen[Any]]):
    """In this context, signals are passed on to the processes. Yields those that came."""
    came: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        came.append(number)
        _send(processes, number)

    previous = {
        number: signal.signal(number, pass_on) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _read(path: Path) -> Failure | None:
    with suppress(OSError, ValueError, TypeError):
        return Failure(**json.loads(path.read_text()))
    return None


def _cause(codes: Sequence[int], first: int, failures: Sequence[Failure | None]) -> Failure:
    """The error to report: a process's own, else that the first to fail was killed.

    codes: exit codes; negative for signals. The main process, which ends because another one has, says what is saved.
    """
    main = failures[0]
    saved = "" if main is None or not main.lost else main.message.partition("; ")[2]
    own = [failure for failure in (main, failures[first], *failures) if failure is not None and not failure.lost]
    if own:
        return own[0]._replace(message="; ".join(filter(None, (own[0].message, saved))))
    if codes[first] < 0:
        name = signal.Signals(-codes[first]).name
        message = f"process {first + 1} of {len(codes)} was killed ({name}), perhaps for want of memory"
        return Failure(f"{message}; {saved or 'the others were ended'}", 1, False)
    if failures[first] is None:  # it has printed a traceback
        return Failure("", 1, False)
    return failures[first] or Failure("", 1, False)
