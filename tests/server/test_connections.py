"""Clients that hold a connection without asking for anything, on real sockets."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from contextlib import closing, suppress
from threading import Timer
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.calls import GENERATIONS
from tests.server.conftest import served

PROMPT = {"prompt": "a cat", "n": 1}
TIMEOUTS = {"head_timeout": 1.0, "idle_timeout": 1}
QUESTION = "GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n"


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def seconds_open(connection: socket.socket, send: Callable[[], None], every: float = 0.1) -> float:
    """How long the server keeps a connection on which `send` sends something now and then."""
    began = time.monotonic()
    connection.settimeout(every)
    while time.monotonic() - began < 20:
        with suppress(ConnectionError):
            send()
        try:
            if not connection.recv(4096):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


def answered(url: str, connection: socket.socket) -> None:
    """Ask a first question on a connection, which stays open."""
    connection.sendall(QUESTION.format(host=urlsplit(url).netloc).encode())
    found = b""
    while b"}" not in found:
        found += connection.recv(4096)
    assert found.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("first", [False, True], ids=["new", "after an answer"])
@pytest.mark.parametrize("drip", [b"", b"x-a: b\r\n"], ids=["silent", "headers"])
def test_a_client_without_a_call_cannot_hold_a_connection(tiny, first: bool, drip: bytes) -> None:
    with served(tiny, **TIMEOUTS) as url, closing(connect(url)) as connection:
        if first:
            answered(url, connection)
        if drip:
            connection.sendall(b"POST /v1/images/generations HTTP/1.1\r\n")
        assert 0.5 < seconds_open(connection, lambda: connection.sendall(drip)) < 15
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_a_client_that_sends_a_body_without_end_after_its_answer_is_dropped(tiny) -> None:
    with served(tiny, **TIMEOUTS) as url, closing(connect(url)) as connection:
        host = urlsplit(url).netloc
        connection.sendall(f"POST /nowhere HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n".encode())
        assert seconds_open(connection, lambda: connection.sendall(b"x")) < 15


def test_a_long_call_and_a_slow_body_are_not_cut_off(held) -> None:
    with served(held, **TIMEOUTS) as url:
        body, parts = json.dumps(PROMPT).encode(), urlsplit(url)
        with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)) as client:
            for seconds in (2.0, 0.0):  # the second call is on the same connection
                held.gate.clear()
                client.putrequest("POST", GENERATIONS)
                client.putheader("content-type", "application/json")
                client.putheader("content-length", str(len(body)))
                client.endheaders(body[:5])
                time.sleep(seconds)
                client.send(body[5:])
                Timer(seconds, held.gate.set).start()
                answer = client.getresponse()
                assert answer.status == 200 and json.loads(answer.read())["data"]


def test_a_whole_server_of_slow_clients_comes_free_again(tiny, monkeypatch) -> None:
    monkeypatch.setattr("unclip.server.connections.MAX_CONNECTIONS", 8)
    with served(tiny, **TIMEOUTS) as url:
        clients = [connect(url) for _ in range(8)]
        try:
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nx: ")
            began = time.monotonic()
            while httpx.get(f"{url}/healthz").status_code == 503:
                assert time.monotonic() - began < 15
                time.sleep(0.1)
            assert httpx.get(f"{url}/healthz").status_code == 200
        finally:
            for client in clients:
                client.close()
