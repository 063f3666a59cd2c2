"""Images per second, and the time to the first image from a cold start."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.errors import UnclipError
from unclip.inference.callbacks import Progress
from unclip.requests.request import Request
from unclip.requests.values import size_text

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


PROMPT = "a penguin on a pink background"


def table(report: dict[str, Any]) -> str:
    """A report as lines of two columns."""
    rows = [
        ("machine", report["machine"]),
        ("model", f"{report['model']}, device {report['device']}, dtype {report['dtype']}"),
        ("cold start to first picture", f"{report['first_picture_s']:.2f} s"),
        ("  peak memory", _mib(report["first_picture_peak_mib"])),
    ]
    rows += [
        (f"{size}, batch {report['batch_size']}", f"{rate:.2f} images/s")
        for size, rate in report["images_per_s"].items()
    ]
    rows.append(("  peak memory", _mib(report["peak_mib"])))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def machine() -> str:
    """Processor, cores in use, system and torch in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {cores} cores, {platform.system()}, torch {importlib.metadata.version('torch')}"


def time_first_image(model: str, device: str, dtype: str, memory: str) -> float:
    """Seconds from starting the program to its end with one picture on disk."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["generate", PROMPT, "--model", model, "--seed", "0", "--quiet"]
        arguments += ["--device", device, "--dtype", dtype, "--memory", memory, "-o", str(Path(folder) / "first.png")]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "unclip", *arguments], capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise UnclipError(f"the first picture failed: {lines[-1].removeprefix('unclip: error: ')}")
    return seconds


def measure_throughput(
    model: str, device: str, dtype: str, memory: str, batch_size: int, repeat: int, progress: Progress
) -> dict[str, float]:
    """Images a second of one full batch, at the model's smallest and largest size."""
    from unclip.pipeline import Unclip

    pipe = Unclip.from_pretrained(model, device=device, dtype=dtype, memory=memory, progress=progress)
    return _rates(pipe, batch_size, repeat, progress)


def _rates(pipe: "Unclip", batch_size: int, repeat: int, progress: Progress) -> dict[str, float]:
    by_area = sorted(pipe.sizes, key=lambda size: size[0] * size[1])
    rates: dict[str, float] = {}
    for size in dict.fromkeys([by_area[0], by_area[-1]]):
        request = Request(prompt=PROMPT, n=batch_size, seed=0, size=size)
        warm_up = Request(prompt=PROMPT, n=batch_size, seed=0, size=size, steps=2, prior_steps=2, upsampler_steps=2)
        pipe.generate([warm_up], batch_size=batch_size, progress=progress)
        seconds = []
        for _ in range(repeat):
            start = time.perf_counter()
            pipe.generate([request], batch_size=batch_size, progress=progress)  # ends with images on the CPU
            seconds.append(time.perf_counter() - start)
        rates[size_text(size)] = batch_size / statistics.median(seconds)
    return rates


def _mib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} MiB"
