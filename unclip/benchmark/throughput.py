"""Measures images per second, and the time to the first image from a cold start."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.benchmark.settings import PROMPT, ModelSettings
from unclip.errors import UnclipError
from unclip.requests.request import Request
from unclip.requests.values import size_text

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

Progress = Callable[[str, int, int], None]
"""Called as (stage, done, total)."""


def format_throughput(report: dict[str, Any]) -> str:
    """Return a report as a table of two columns."""
    rows = [
        ("machine", report["machine"]),
        ("model", f"{report['model']}, device {report['device']}, dtype {report['dtype']}"),
        ("cold start to first image", f"{report['first_picture_s']:.2f} s"),
        ("  peak memory", _mib(report["first_picture_peak_mib"])),
    ]
    rows += [
        (f"{size}, batch {report['batch_size']}", f"{rate:.2f} images/s")
        for size, rate in report["images_per_s"].items()
    ]
    rows.append(("  peak memory", _mib(report["peak_mib"])))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def describe_machine() -> str:
    """Return processor, available cores, operating system and version of torch in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{name}, {cores} cores, {platform.system()}, torch {importlib.metadata.version('torch')}"


def time_first_image(settings: ModelSettings) -> float:
    """Return the seconds of a whole run of the program that generates one image. Raises UnclipError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["generate", PROMPT, "--model", settings.model, "--seed", "0", "--quiet"]
        arguments += ["--device", settings.device, "--dtype", settings.dtype, "--memory", settings.memory]
        arguments += [] if settings.prior is None else ["--prior", settings.prior]
        command = [sys.executable, "-m", "unclip", *arguments, "-o", str(Path(folder) / "first.png")]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no error output"]
        raise UnclipError(f"the first image failed: {lines[-1].removeprefix('unclip: error: ')}")
    return seconds


def measure_throughput(
    settings: ModelSettings, batch_size: int, repeat: int, progress: Progress | None = None
) -> dict[str, float]:
    """Return the images per second of one full batch, at the model's smallest, default and largest size.

    Args:
        settings: The model.
        batch_size: Images generated at a time.
        repeat: Timed runs of each size; the median counts.
        progress: Called as (stage, done, total) after each network is loaded and after each denoising step.
    """
    from unclip.pipeline import Unclip

    pipe = Unclip.from_pretrained(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        memory=settings.memory,
        prior=settings.prior,
        progress=progress,
    )
    sizes = sorted(pipe.model.sizes, key=lambda size: size[0] * size[1])
    return {
        size_text(size): _measure_rate(pipe, size, batch_size, repeat, progress)
        for size in dict.fromkeys([sizes[0], pipe.model.default_size, sizes[-1]])
    }


def _measure_rate(
    pipe: "Unclip", size: tuple[int, int], batch_size: int, repeat: int, progress: Progress | None
) -> float:
    request = Request(prompt=PROMPT, n=batch_size, seed=0, size=size)
    warm_up = Request(prompt=PROMPT, n=batch_size, seed=0, size=size, steps=2, prior_steps=2, upsampler_steps=2)
    pipe.generate([warm_up], batch_size=batch_size, progress=progress)
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        pipe.generate([request], batch_size=batch_size, progress=progress)  # ends with images on the CPU
        seconds.append(time.perf_counter() - start)
    return batch_size / statistics.median(seconds)


def _mib(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} MiB"
