"""Measures a server: its start, the time of an image, its throughput with many clients, and its memory.

The server runs as a process of its own, as `unclip serve` starts it, and is called over HTTP on the loopback interface.
"""

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
def running_server(settings: ModelSettings, batch_size: int) -> Iterator[RunningServer]:
    """A server of a model on a free port, until the context ends. Raises UnclipError if it does not start."""
    command = [sys.executable, "-m", "unclip", "serve", "--port", "0", "--quiet", "--batch-size", str(batch_size)]
    command += ["--model", settings.model, "--device", settings.device, "--dtype", settings.dtype]
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


def measure_serving(
    settings: ModelSettings,
    clients: int,
    batch_size: int,
    repeat: int,
    requests: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The report of a server as `format_serving` reads it.

    clients: that call at the same time, for one image of the smallest size each. requests: after which memory is
    compared; 0 leaves this out. repeat: timed runs; the median counts.
    """
    report: dict[str, Any] = {"clients": clients, "batch_size": batch_size, "requests": requests}
    size, report["direct_images_per_s"] = _measure_direct(settings, clients, batch_size, repeat, progress)
    with running_server(settings, batch_size) as server:
        report["start_s"] = server.seconds
        seconds = []
        for seed in range(2 + repeat):
            start = time.perf_counter()
            server.generate(seed=seed)
            seconds.append(time.perf_counter() - start)
        report["first_image_s"], report["second_image_s"] = seconds[0], seconds[1]
        report["image_s"] = statistics.median(seconds[2:])
        report["size"] = size
        _call_at_once(server, clients, size)
        runs = [_call_at_once(server, clients, size) for _ in range(repeat)]
        report["served_images_per_s"] = clients / statistics.median(runs)
        if requests:
            report["memory_mib"] = _measure_memory(server, requests, size, progress)
    return report


def _measure_direct(
    settings: ModelSettings, count: int, batch_size: int, repeat: int, progress: Progress | None
) -> tuple[str, float]:
    """(the smallest size, images per second of `count` images of it, without a server)."""
    from unclip.pipeline import Unclip

    pipe = Unclip.from_pretrained(
        settings.model, device=settings.device, dtype=settings.dtype, memory=settings.memory, progress=progress
    )
    size = min(pipe.model.sizes)
    request = Request(prompt=PROMPT, n=count, seed=0, size=size)
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        for result in pipe.generate([request], batch_size=batch_size):
            result.to_bytes()  # as the server does
        seconds.append(time.perf_counter() - start)
    return size_text(size), count / statistics.median(seconds[1:])


def _call_at_once(server: RunningServer, clients: int, size: str) -> float:
    """The seconds until as many clients at the same time have an image each."""
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        list(pool.map(lambda seed: server.generate(seed=seed, size=size), range(clients)))
        return time.perf_counter() - start


def _measure_memory(server: RunningServer, requests: int, size: str, progress: Progress | None) -> list[float]:
    """MiB of the server's memory after each tenth of the requests, of one image each."""
    found = []
    for number in range(1, requests + 1):
        server.generate(seed=number, size=size)
        if progress is not None:
            progress("requests", number, requests)
        if number % max(1, requests // 10) == 0:
            found.append(server.memory())
    return found


def format_serving(report: dict[str, Any]) -> str:
    """A report as a table of two columns."""
    direct, served = report["direct_images_per_s"], report["served_images_per_s"]
    rows = [
        ("start", f"{report['start_s']:.2f} s"),
        ("first image, second image", f"{report['first_image_s']:.2f} s, {report['second_image_s']:.2f} s"),
        ("an image", f"{report['image_s']:.2f} s"),
        (f"{report['size']}, {report['clients']} images without a server", f"{direct:.2f} images/s"),
        (f"{report['size']}, {report['clients']} clients at once", f"{served:.2f} images/s ({served / direct:.0%})"),
    ]
    if report.get("memory_mib"):
        rows.append((f"memory over {report['requests']} requests", _mib_series(report["memory_mib"])))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _mib_series(values: Sequence[float]) -> str:
    return f"{', '.join(f'{value:.0f}' for value in values)} MiB"
