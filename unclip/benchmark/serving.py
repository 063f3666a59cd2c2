"""Measures a server: its start, the time of an image, its throughput with many clients, and its memory.

The server runs as a process of its own, as `unclip serve` starts it, and is called over HTTP on the loopback interface.
Requests overlap, as those of many clients do: one after the other, each would cost a micro-batch of its own.
"""

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from unclip.benchmark.settings import PROMPT, ModelSettings
from unclip.errors import UnclipError
from unclip.inference.callbacks import Progress
from unclip.requests.request import Request
from unclip.requests.values import size_text

GENERATIONS = "/v1/images/generations"


@dataclass(frozen=True)
class Load:
    """How a server is called.

    clients     that call at the same time, for one image each
    batch_size  images that the server generates together
    repeat      timed runs; the median counts
    requests    over which memory is watched; 0 leaves this out
    """

    clients: int = 32
    batch_size: int = 16
    repeat: int = 3
    requests: int = 500


@dataclass(frozen=True)
class Figure:
    """A measured value. name: of its field in JSON. text: with its unit, for people, below `label`."""

    name: str
    value: Any
    label: str
    text: str

    def __str__(self) -> str:
        return f"{self.label + ':':<42} {self.text}"


@dataclass(frozen=True)
class RunningServer:
    """A server, and the process that runs it. seconds: from its start until it could be called."""

    url: str
    process: int
    seconds: float

    def generate(self, **fields: Any) -> dict[str, Any]:
        """The answer to a call for images, by a connection of its own. Raises UnclipError if it failed."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=600)
        try:
            body = json.dumps({"prompt": PROMPT, "response_format": "url", **fields})
            connection.request("POST", GENERATIONS, body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnclipError(f"the server does not answer ({error or type(error).__name__})") from None
        finally:
            connection.close()
        if response.status != 200:
            raise UnclipError(f"the server answered {response.status}: {answer['error']['message']}")
        return answer

    def memory(self) -> float:
        """MiB of memory that the process has of its own or shares with others."""
        import psutil

        return psutil.Process(self.process).memory_info().rss / (1 << 20)


@contextmanager
def running_server(settings: ModelSettings, load: Load) -> Iterator[RunningServer]:
    """A server of a model on a free port, until the context ends. Raises UnclipError if it does not start."""
    command = [sys.executable, "-m", "unclip", "serve", "--port", "0", "--quiet"]
    command += ["--batch-size", str(load.batch_size), "--queue-size", str(max(256, load.clients))]
    command += ["--model", settings.model, "--device", settings.device, "--dtype", settings.dtype]
    command += [] if settings.prior is None else ["--prior", settings.prior]
    start = time.perf_counter()
    server = subprocess.Popen([*command, "--memory", settings.memory], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise UnclipError("the server did not start; its error is above")
        yield RunningServer(line.split()[-1], server.pid, time.perf_counter() - start)
    finally:
        server.terminate()
        server.wait()


def measure_serving(settings: ModelSettings, load: Load, progress: Progress | None = None) -> Generator[Figure]:
    """The figures of a server, each as soon as it is known. progress: called as (stage, done, total)."""
    size, direct = _measure_direct(settings, load, progress)
    yield Figure(
        "direct_images_per_s", direct, f"{size}, {load.clients} images without a server", f"{direct:.2f} images/s"
    )
    with running_server(settings, load) as server:
        yield Figure("start_s", server.seconds, "start", f"{server.seconds:.2f} s")
        for name, label in (("first_image_s", "first image"), ("second_image_s", "second image")):
            default, seconds = _time_image(server, 0)
            yield Figure(name, seconds, f"{default}, {label}", f"{seconds:.2f} s")
        seconds = statistics.median(_time_image(server, seed)[1] for seed in range(load.repeat))
        yield Figure("image_s", seconds, f"{default}, one image", f"{seconds:.2f} s")
        runs = [_call(server, load.clients, load.clients, size, progress) for _ in range(1 + load.repeat)]
        served = load.clients / statistics.median(runs[1:])  # the first one warms up
        text = f"{served:.2f} images/s ({served / direct:.0%})"
        yield Figure("served_images_per_s", served, f"{size}, {load.clients} clients at once", text)
        if load.requests:
            yield from _watch_memory(server, load, size, progress)


def _measure_direct(settings: ModelSettings, load: Load, progress: Progress | None) -> tuple[str, float]:
    """(the model's smallest size, images per second of one request for all clients' images, without a server)."""
    from unclip.pipeline import Unclip

    pipe = Unclip.from_pretrained(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        memory=settings.memory,
        prior=settings.prior,
        progress=progress,
    )
    size = min(pipe.model.sizes)
    request = Request(prompt=PROMPT, n=load.clients, seed=0, size=size)
    seconds = []
    for run in range(1 + load.repeat):
        start = time.perf_counter()
        for result in pipe.generate([request], batch_size=load.batch_size):
            result.to_bytes()  # as the server does
        seconds.append(time.perf_counter() - start)
        if progress is not None:
            progress("runs without a server", run + 1, 1 + load.repeat)
    return size_text(size), load.clients / statistics.median(seconds[1:])


def _time_image(server: RunningServer, seed: int) -> tuple[str, float]:
    """(the size, the seconds) of an image of the default size while nobody else calls."""
    start = time.perf_counter()
    image = server.generate(seed=seed)["data"][0]
    return f"{image['width']}x{image['height']}", time.perf_counter() - start


def _call(
    server: RunningServer, count: int, clients: int, size: str, progress: Progress | None, first: int = 0
) -> float:
    """The seconds until so many calls are answered, as many as there are clients at a time. first: seed."""
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        calls = [pool.submit(server.generate, seed=seed, size=size) for seed in range(first, first + count)]
        try:
            for done, call in enumerate(as_completed(calls), 1):
                call.result()
                if progress is not None:
                    progress("calls", done, count)
        finally:
            pool.shutdown(cancel_futures=True)  # after a failure, the others would fail too
        return time.perf_counter() - start


def _watch_memory(server: RunningServer, load: Load, size: str, progress: Progress | None) -> Generator[Figure]:
    """The memory after each tenth of the requests, while no call runs, and the rate at which they were answered."""
    ends = [load.requests * part // 10 for part in range(11)]
    found, seconds = [server.memory()], 0.0
    for start, end in zip(ends, ends[1:], strict=False):
        if end > start:
            seconds += _call(server, end - start, load.clients, size, progress, start)
            found.append(server.memory())
    label = f"{size}, {load.requests} requests"
    yield Figure("requests_per_s", load.requests / seconds, label, f"{load.requests / seconds:.2f} images/s")
    series = ", ".join(f"{mib:.0f}" for mib in found)
    yield Figure("memory_mib", found, "memory before them and after each tenth", f"{series} MiB")
