"""Servers of the tiny model: one without sockets, and one on the loopback interface for real clients."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx"):
    pytest.importorskip(package, reason="needs the extra `serve`, and httpx")

if TYPE_CHECKING:
    from fastapi.testclient import TestClient
    from playwright.sync_api import Browser

    from tests.server.canvas_page import Canvas
    from unclip.pipeline import Unclip

BASE = "http://127.0.0.1:8000"


@contextlib.contextmanager
def client_of(pipe: Any, **settings: Any) -> Iterator[TestClient]:
    """A client of a server of its own, in this process and without a socket."""
    from fastapi.testclient import TestClient

    from unclip.server.app import create_app
    from unclip.server.settings import ServerSettings

    app = create_app({"tiny": pipe}, ServerSettings(**settings))
    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        yield client


@contextlib.contextmanager
def served(pipe: Any, **settings: Any) -> Iterator[str]:
    """The url of a server on a free port of the loopback interface."""
    from unclip.server.app import create_app
    from unclip.server.connections import http_server
    from unclip.server.run import bind, url_of
    from unclip.server.settings import ServerSettings

    chosen = ServerSettings(**settings)
    server = http_server(create_app({"tiny": pipe}, chosen), chosen)
    with contextlib.closing(bind("127.0.0.1", 0)) as socket:
        thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.01)
            yield url_of(socket).rstrip("/")
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def held(tiny: Unclip) -> Any:
    """The pipeline of the tiny model, whose micro-batches go on until `held.gate` is set or all clients have gone.

    `held.begun` is set when one begins.
    """
    from unclip.pipeline import Unclip

    class Held(Unclip):
        begun, gate = threading.Event(), threading.Event()

        def generate_batch(self, requests, progress=None):
            self.begun.set()
            while not self.gate.wait(0.01):
                assert progress is not None
                progress("decoder", 0, 1)
            return super().generate_batch(requests, progress)

    return Held(tiny.model)


@pytest.fixture(scope="session")
def client(tiny: Unclip) -> Iterator[TestClient]:
    """A client of a server of the tiny model with the default settings."""
    with client_of(tiny) as found:
        yield found


@pytest.fixture(scope="session")
def url(tiny: Unclip) -> Iterator[str]:
    """The url of a server of the tiny model with the default settings, on the loopback interface."""
    with served(tiny) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, for one module: while it runs, no other test may run an event loop in this thread."""
    from playwright.sync_api import sync_playwright

    from tests.server.canvas_page import PROGRAM

    # As root, as in containers, chromium starts without its sandbox only. The pages are our own.
    options = {"executable_path": PROGRAM, "args": ["--no-sandbox"]}
    with sync_playwright() as playwright, playwright.chromium.launch(**options) as found:
        yield found


@pytest.fixture
def canvas(browser: Browser, url: str) -> Iterator[Canvas]:
    """The page of a canvas of the tiny model, in a profile of its own."""
    from tests.server.canvas_page import opened

    yield from opened(browser, url)
