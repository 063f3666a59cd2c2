"""What guards every call: the Host and Origin headers, the key, the size and the time of the body; and what marks it.

All are ASGI middleware of one class, so that a call that is refused costs nothing.
"""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.server.errors import NO_RETRY, ApiError, api_error
from unclip.server.metrics import Metrics
from unclip.server.settings import ServerSettings

LOG = logging.getLogger("unclip.server")
OPEN_PATHS = ("/", "/healthz", "/favicon.ico")
"""Paths that need no key. Those below `OPEN_FOLDERS` neither: the page, and files under ids that cannot be guessed."""
OPEN_FOLDERS = ("/web/", "/files/")
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Middleware: refuses what a server must not answer, limits bodies, and adds headers to every response."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._keys = [_digest(key) for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = f"req_{secrets.token_hex(12)}"
        scope["request_id"] = call
        origin = Headers(scope=scope).get("origin")
        start, status = time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._mark(scope, message, call, origin)
            await send(message)

        try:
            self._check(scope, origin)
            if scope["method"] == "OPTIONS" and origin in self._settings.origins:
                await Response(status_code=204)(scope, receive, send_marked)
                return
            await self._app(scope, LimitedBody(scope, receive, self._settings), send_marked)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:
            if status:
                raise
            found = api_error(error)
            if found.status == 500:
                LOG.exception("%s %s failed (%s)", scope["method"], scope["path"], call)
            await error_response(found)(scope, receive, send_marked)
        finally:
            self._count(scope, status, time.monotonic() - start)

    def _check(self, scope: Scope, origin: str | None) -> None:
        """Raise ApiError for a call from a page or to a name that is not this server's, or without a key."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._settings.hosts is not None and host_name(host) not in self._settings.hosts:
            raise ApiError(
                f"This server does not answer to the name {host_name(host)[:80]!r}; --allow-host adds names.",
                421,
                code="unknown_host",
            )
        if origin is not None and origin not in self._settings.origins and not is_same_origin(origin, host):
            raise ApiError("Calls from other web pages are refused; --allow-origin adds them.", 403, code="origin")
        path = scope["path"]
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or scope["method"] == "OPTIONS"
        if self._keys and not is_open:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            given = _digest(key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
            # All are compared, so that the time says nothing about the keys.
            if not any([hmac.compare_digest(given, known) for known in self._keys]):
                raise ApiError(
                    "Incorrect API key provided. Send it as Authorization: Bearer KEY.",
                    401,
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )

    def _mark(self, scope: Scope, message: Message, call: str, origin: str | None) -> None:
        """Add the headers of every response."""
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        message["headers"] = headers.raw
        headers["x-request-id"] = call
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        is_page = scope["path"] == "/" or scope["path"].startswith("/web/")
        headers.setdefault("content-security-policy", PAGE_POLICY if is_page else API_POLICY)
        # The page's files are checked each time: after an update, old and new modules would not fit together.
        headers.setdefault("cache-control", "no-cache" if scope["path"].startswith("/web/") else "no-store")
        if origin is not None and origin in self._settings.origins:
            headers["access-control-allow-origin"] = origin
            headers["access-control-allow-headers"] = "authorization, content-type, x-api-key"
            headers["access-control-allow-methods"] = "GET, POST, DELETE, OPTIONS"
            headers["access-control-expose-headers"] = "x-request-id, retry-after"
            headers.add_vary_header("origin")

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log a call, under the pattern of its path: ids stay out of both. Status 0: the client has gone."""
        path = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.calls.labels(path, str(status)).inc()
        level = logging.DEBUG if path in ("/healthz", "/metrics") else logging.INFO
        LOG.log(level, "%s %s %s, %.2f s", scope["method"], path, status or "client gone", seconds)


class LimitedBody:
    """A `receive` that raises ApiError for a body that is too large, or too slow to arrive."""

    def __init__(self, scope: Scope, receive: Receive, settings: ServerSettings) -> None:
        self._receive = receive
        self._left = settings.max_body
        self._limit = settings.max_body
        self._deadline = time.monotonic() + settings.body_timeout
        self._complete = False
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > settings.max_body:
            raise self._too_large()

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
            self._left -= len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._left < 0:
                raise self._too_large()
        return message

    def _too_large(self) -> ApiError:
        message = f"The body is too large. At most {self._limit:,} bytes are read."
        return ApiError(message, 413, code="body_too_large", headers={"connection": "close"})


def error_response(error: ApiError) -> JSONResponse:
    """A response in OpenAI's form."""
    return JSONResponse(error.body(), error.status, error.headers)


def host_name(host: str) -> str:
    """The name in a Host header, in lower case, without its port: "[::1]:8000" -> "::1"."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page's origin is the server itself, as the Host header names it."""
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def allowed_hosts(host: str, others: Iterable[str], loopback: Sequence[str]) -> tuple[str, ...] | None:
    """The names that a server on an address answers to: None, for any, if it is open to other machines."""
    if host in loopback or others:
        return (*loopback, *others)
    return None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
