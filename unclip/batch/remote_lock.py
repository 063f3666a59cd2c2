"""The lock of an output folder behind a URL: a file that the run that has it renews every half a minute.

A run that has not done so for two minutes has ended, and another one may begin. There is no stronger lock that all
stores have: two runs that begin in the same moment may both get it, until the first of them sees that it has lost it.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from unclip.errors import InputError
from unclip.system.json_values import parse_json

BEAT = 30
"""Seconds between renewals."""
LEASE = 120
"""Seconds without one after which a run has ended."""


class RemoteLock:
    """The lock of a URL. read, write, remove: of its file; read raises FileNotFoundError if there is none."""

    def __init__(
        self, url: str, read: Callable[[], bytes], write: Callable[[bytes], None], remove: Callable[[], None]
    ) -> None:
        self._url = url
        self._read, self._write, self._remove = read, write, remove
        self._token = secrets.token_hex(8)
        self._since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_regularly, daemon=True)
        self._is_lost = False

    def acquire(self) -> None:
        """Take the lock, and renew it from now on. Raises InputError if another run has it."""
        owner = self._owner()
        if owner is not None and _is_alive(owner):
            who = " on ".join(f"{owner.get(key)!s:.60}" for key in ("pid", "host"))
            raise InputError(
                f"{self._url!r} is in use by process {who}; wait for it, or if it was killed, for {LEASE} seconds"
            )
        self._renew()
        self._thread.start()

    def release(self) -> None:
        """Give the lock back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(Exception):
            if not self._is_lost:
                self._remove()

    def check(self) -> None:
        """Raise OSError if another run has taken the lock: this one was stopped for minutes, for instance."""
        if self._is_lost:
            raise OSError(errno.EBUSY, "another run has taken it over")

    def _renew_regularly(self) -> None:
        while not self._stop.wait(BEAT):
            with suppress(Exception):  # the next one may succeed; images report what is wrong
                owner = self._owner()
                if owner is not None and owner.get("token") != self._token:
                    self._is_lost = True
                    return
                self._renew()

    def _renew(self) -> None:
        owner = {"pid": os.getpid(), "host": platform.node(), "since": self._since, "token": self._token}
        self._write(json.dumps({**owner, "beat": time.time()}).encode())

    def _owner(self) -> dict[str, Any] | None:
        try:
            owner = parse_json(self._read())
            return owner if isinstance(owner, dict) else None
        except (FileNotFoundError, ValueError):
            return None


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the run with this lock goes on: it has renewed it, and is not a process that has ended here."""
    import psutil

    beat, pid = owner.get("beat"), owner.get("pid")
    if not isinstance(beat, (int, float)) or time.time() - beat > LEASE:
        return False
    if owner.get("host") != platform.node() or not isinstance(pid, int):
        return True
    return psutil.pid_exists(pid)
