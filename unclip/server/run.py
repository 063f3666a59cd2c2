"""Run a server on a socket: the models in the calling thread, HTTP in another one, until a signal."""

import logging
import signal
import socket
import threading
from collections.abc import Mapping

from unclip.errors import InputError, UnclipError
from unclip.pipeline import Unclip
from unclip.server.app import create_app
from unclip.server.connections import http_server
from unclip.server.settings import ServerSettings
from unclip.server.worker import Worker
from unclip.system.interrupts import SIGNALS

UNREAD_TIMEOUT = 60_000  # milliseconds


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address, before anything slow is done. Raises InputError if it is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux closes connections whose clients do not read for so long
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_TIMEOUT)
        found.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot listen on {host} port {port} ({reason}); choose another --host or --port") from None
    return found


def url_of(server: socket.socket) -> str:
    """The url at which a browser on this machine finds the server."""
    host, port = server.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, str(host))
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(models: Mapping[str, Unclip], settings: ServerSettings, sockets: list[socket.socket]) -> None:
    """Serve until one of SIGNALS; then finish what is being generated, which a second signal stops.

    A third signal does not even wait for clients that are slow to read.

    The models run in the calling thread, which on a CPU should be the main one (see `Worker`).
    """
    worker = Worker()
    app = create_app(models, settings, worker)
    server = http_server(app, settings)

    def run_http() -> None:
        try:
            server.run(sockets)
        finally:
            worker.stop()

    def stop(number: int, frame: object) -> None:
        nonlocal signals
        signals += 1
        server.should_exit = True
        server.force_exit = signals > 2
        queue.close_soon(cancel=signals > 1)

    signals = 0
    queue = app.state.server.queue
    before = {
        number: signal.signal(number, stop) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }
    http = threading.Thread(target=run_http, name="unclip-http")
    http.start()
    try:
        worker.run()
        http.join()
        if not server.started:
            raise UnclipError("the server could not start; the log says why")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_stderr(level: int) -> None:
    """Log the calls, and the errors of the server and of uvicorn, to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("unclip: %(message)s"))
    for name, lowest in (("unclip.server", level), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(max(level, lowest))
        logger.addHandler(handler)
        logger.propagate = False
