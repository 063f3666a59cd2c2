"""Connections of the server, and how long a client may hold one that asks for nothing."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from unclip.server.settings import ServerSettings

MAX_CONNECTIONS = 1000
"""Further ones are answered with status 503."""


def http_server(app: Any, settings: ServerSettings) -> uvicorn.Server:
    """uvicorn's server of an app, with limits of its connections: in number, and in time."""

    class Connection(TimedConnection):
        head_timeout = settings.head_timeout

    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=settings.idle_timeout,
    )
    return uvicorn.Server(config)


class TimedConnection(H11Protocol):
    """A connection that is closed unless the head of a call arrives within `head_timeout` seconds.

    They count from the beginning of the connection, and from the first byte after an answer. uvicorn itself only closes
    a connection on which nothing arrives after an answer, so a byte now and then would hold one for ever.
    """

    head_timeout: float
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._waits_for_head:
            self._start_timer()
        super().data_received(data)
        if not self._waits_for_head:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def _waits_for_head(self) -> bool:
        """Whether no call is being read or answered. `cycle` is the last call; None before the first one."""
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if self._waits_for_head:
            self.transport.close()
