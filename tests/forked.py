"""Functions in several processes of a run, which are forked: they have torch imported already."""

import os
import pickle
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

LIMIT = 120
"""Seconds after which a process that hangs ends."""
forks = pytest.mark.skipif(sys.platform != "linux", reason="torch's threads survive a fork on Linux only")


def in_processes(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What `function` returns or raises in each of `count` processes, given its rank; the signal of one that is killed.

    An exception comes as (its type, its message).
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    wait, done = os.pipe()
    children = [_fork(rank, count, port, function, (wait, done)) for rank in range(count)]
    os.close(wait)
    results = [_read(reader) for _, reader in children]
    os.close(done)
    return [_result(pid, data) for (pid, _), data in zip(children, results, strict=True)]


def _fork(rank: int, count: int, port: int, function: Callable[[int], Any], gate: tuple[int, int]) -> tuple[int, int]:
    reader, writer = os.pipe()
    sys.stdout.flush()
    if (pid := os.fork()) != 0:
        os.close(writer)
        return pid, reader
    try:
        wait, done = gate
        os.close(done)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT)
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in own.items()}, MASTER_ADDR="127.0.0.1")
        try:
            result = function(rank)
        except BaseException as error:
            if os.environ.get("SHOW_TRACEBACKS"):
                traceback.print_exc()
            result = type(error), str(error)
        with os.fdopen(writer, "wb") as file:
            pickle.dump(result, file)
        # The others may still be connecting to this process; some tests wait for its end.
        select.select([wait], [], [], 1.0)
    finally:
        os._exit(0)


def _read(reader: int) -> bytes:
    with os.fdopen(reader, "rb") as file:
        return file.read()


def _result(pid: int, data: bytes) -> Any:
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else pickle.loads(data)
