"""What guards every call: the Host and Origin headers, the key, and limits of the body and the answer; and its marks.

All are ASGI middleware of one class, so that a call that is refused costs nothing.
"""

import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unclip.server.errors import ApiError, api_error
from unclip.server.memory import Memory
from unclip.server.metrics import Metrics
from unclip.server.settings import ServerSettings
from unclip.server.transfer import LimitedBody, TimedSend

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

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, memory: Memory) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._memory = memory
        self._keys = [_digest(form) for key in settings.api_keys for form in header_forms(key)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = f"req_{secrets.token_hex(12)}"
        scope["request_id"] = call
        origin = Headers(scope=scope).get("origin")
        start, status = time.monotonic(), 0
        send = TimedSend(send, self._settings.send_timeout)
        body = LimitedBody(receive, self._settings, self._memory)

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
            body.check_length(Headers(scope=scope).get("content-length", "0"))
            await self._app(scope, body, send_marked)
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
            body.close()
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
        if origin is not None and origin not in self._settings.origins:
            if not is_same_origin(origin, host):
                raise ApiError("Calls from other web pages are refused; --allow-origin adds them.", 403, code="origin")
            if self._settings.hosts is None and not self._keys and not is_own_name(host_name(host)):
                # Another site may give its own name the address of this machine (DNS rebinding). A key would stop it.
                raise ApiError(
                    f"Pages of {host_name(host)[:80]!r} are refused without --api-key; --allow-host adds the name.",
                    403,
                    code="origin",
                )
        path = scope["path"]
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS) or scope["method"] == "OPTIONS"
        if self._keys and not is_open:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            given = _digest(key.encode("latin-1"))  # the bytes of the header
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
            asked = Headers(scope=scope).get("access-control-request-headers")  # OpenAI's client sends many of its own
            headers["access-control-allow-headers"] = asked or "authorization, content-type, x-api-key"
            headers["access-control-allow-methods"] = "GET, POST, DELETE, OPTIONS"
            headers["access-control-expose-headers"] = "x-request-id, x-generated-size, retry-after"
            headers["access-control-max-age"] = "3600"
            headers.add_vary_header("origin")

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log a call, under the pattern of its path: ids stay out of both. Status 0: the client has gone."""
        path = getattr(scope.get("route"), "path", None) or "other"
        self._metrics.calls.labels(path, str(status)).inc()
        level = logging.DEBUG if path in ("/healthz", "/metrics") else logging.INFO
        LOG.log(level, "%s %s %s, %.2f s", scope["method"], path, status or "client gone", seconds)


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


def is_own_name(name: str) -> bool:
    """Whether a host is an address or a name of this machine, which no other site can have."""
    own = socket.gethostname().lower()
    if name in ("localhost", own, f"{own}.local"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def allowed_hosts(host: str, others: Iterable[str], loopback: Sequence[str]) -> tuple[str, ...] | None:
    """The names that a server on an address answers to: None, for any, if it is open to other machines."""
    if host in loopback or others:
        return (*loopback, *others)
    return None


def header_forms(key: str) -> set[bytes]:
    """The bytes that clients send for a key: in UTF-8, or as browsers do, in Latin-1."""
    found = {key.encode(errors="surrogateescape")}
    if all(ord(character) < 256 for character in key):
        found.add(key.encode("latin-1"))
    return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
