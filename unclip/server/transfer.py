"""Limits of the bytes that a call receives and sends: their number, their time, and the memory of all calls."""

import asyncio
import time

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from unclip.server.errors import NO_RETRY, ApiError
from unclip.server.memory import Memory
from unclip.server.settings import ServerSettings

SLICE = 1 << 16
"""Bytes of an answer that are sent at a time: a client that does not read holds no more than these."""


class LimitedBody:
    """A `receive` that raises ApiError for a body that is too large, or too slow to arrive."""

    def __init__(self, receive: Receive, settings: ServerSettings, memory: Memory) -> None:
        self._receive = receive
        self._limit = settings.max_body
        self._memory = memory
        self._size = 0
        self._deadline = time.monotonic() + settings.body_timeout
        self._complete = False

    def check_length(self, length: str) -> None:
        """Raise ApiError for a Content-Length above the limit, before any byte is read."""
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()

    def close(self) -> None:
        """Give back the memory of the body."""
        self._memory.give(self._size)
        self._size = 0

    async def __call__(self) -> Message:
        if self._complete:  # from now on, a message is about the end of the connection
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            raise ApiError(
                "The body took too long to arrive.", 408, code="timeout", headers={**NO_RETRY, "connection": "close"}
            ) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            if self._size + count > self._limit:
                raise self._too_large()
            self._memory.take(count)
            self._size += count
            self._complete = not message.get("more_body", False)
        return message

    def _too_large(self) -> ApiError:
        message = f"The body is too large. At most {self._limit:,} bytes are read."
        return ApiError(message, 413, code="body_too_large", headers={"connection": "close"})


class TimedSend:
    """A `send` that raises ClientDisconnect if the client reads nothing for `timeout` seconds."""

    def __init__(self, send: Send, timeout: float) -> None:
        self._send = send
        self._timeout = timeout

    async def __call__(self, message: Message) -> None:
        body, sent = message.get("body", b""), 0
        while len(body) - sent > SLICE:
            await self._in_time({**message, "body": body[sent : sent + SLICE], "more_body": True})
            sent += SLICE
        await self._in_time({**message, "body": body[sent:]} if sent else message)

    async def _in_time(self, message: Message) -> None:
        try:
            await asyncio.wait_for(self._send(message), self._timeout)
        except TimeoutError:
            raise ClientDisconnect from None
