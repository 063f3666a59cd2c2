"""`unclip serve`: its address, its start and its end."""

import os
import signal
import socket
import threading
import time
from contextlib import closing

import httpx
import pytest

from tests.server.calls import GENERATIONS
from unclip.cli.main import main
from unclip.errors import InputError
from unclip.server.run import bind, serve, url_of
from unclip.server.settings import ServerSettings

CALL = {"prompt": "a cat", "size": "16x16"}


def serve_until(pipe, test):
    """Serve in this thread while `test(url)` runs in another one; then it has stopped the server by a signal."""
    errors = []

    def run(url):
        try:
            wait_until(lambda: answers(url))
            test(url)
        except BaseException as error:
            errors.append(error)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with closing(bind("127.0.0.1", 0)) as found:
        thread = threading.Thread(target=run, args=(url_of(found).rstrip("/"),))
        thread.start()
        serve({"tiny": pipe}, ServerSettings(), [found])
        thread.join(10)
    assert not errors, errors


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def wait_until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def queued(url: str) -> int:
    return httpx.get(f"{url}/v1/server").json()["queued_images"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_what_runs_and_refuses_what_waits(held, number):
    def test(url):
        found = {}

        def call(name, **fields):
            found[name] = httpx.post(url + GENERATIONS, json={**CALL, **fields}, timeout=60)

        running = threading.Thread(target=call, args=("running",))
        running.start()
        wait_until(held.begun.is_set)
        waiting = threading.Thread(target=call, args=("waiting",), kwargs={"steps": 3})
        waiting.start()
        wait_until(lambda: queued(url) == 2)
        os.kill(os.getpid(), number)
        waiting.join()
        held.gate.set()
        running.join()
        assert found["running"].status_code == 200
        assert found["waiting"].status_code == 503
        assert found["waiting"].json()["error"]["code"] == "shutting_down"

    before = signal.getsignal(number)
    serve_until(held, test)
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_what_runs(held):
    outcomes = []

    def test(url):
        def call():
            outcomes.append(httpx.post(url + GENERATIONS, json={**CALL, "n": 4}, timeout=60))

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(held.begun.is_set)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        thread.join()

    serve_until(held, test)
    assert [outcome.status_code for outcome in outcomes] == [503]


def test_an_address_that_is_taken_is_one_line(capsys):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}"):
            bind("127.0.0.1", port)
        assert main(["serve", "--port", str(port)]) == 2
    with pytest.raises(InputError, match="cannot listen"):
        bind("no.such.host.invalid", 1)
    assert "unclip: error: cannot listen on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port"),
        (["--max-images", "0"], "at least 1"),
        (["--api-key", ""], "--api-key is empty"),
        (["--model", "stikers", "--port", "0"], "did you mean 'stickers'?"),
    ],
)
def test_wrong_options_are_one_line(capsys, arguments, words):
    assert main(["serve", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_the_command_serves_the_model_it_was_given(tiny_model, capfd):
    """From the command line to an answer, in this process: the signal comes from a thread."""
    found = {}

    def call():
        url = ""

        def line():
            nonlocal url
            text = capfd.readouterr().out
            url = text.rpartition(" ")[2].strip() or url
            return url.startswith("http")

        wait_until(line)
        found["models"] = httpx.get(f"{url}v1/models", headers={"authorization": "Bearer k"}).json()
        found["refused"] = httpx.get(f"{url}v1/models").status_code
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=call)
    thread.start()
    code = main(["serve", "--model", str(tiny_model), "--port", "0", "--api-key", "k", "--quiet", "--device", "cpu"])
    thread.join()
    assert code == 0
    assert found["models"]["data"][0]["id"] == "tiny"
    assert found["refused"] == 401


def test_the_url_is_one_that_a_browser_opens():
    with closing(bind("0.0.0.0", 0)) as found:
        assert url_of(found).startswith("http://127.0.0.1:")
