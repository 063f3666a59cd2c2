"""The amount of work in a prompt file, and estimates of its time and disk space from the images already made."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from unclip.batch.manifest import read_lines
from unclip.batch.report import Plan
from unclip.checkpoints.identity import ModelIdentity
from unclip.requests.request import Request
from unclip.requests.values import size_text

Size = tuple[int, int]

_BYTES_PER_PIXEL = {"png": 1.2, "jpg": 0.5, "jpeg": 0.5, "webp": 0.3}
_BYTES_PER_RECORD = 3000  # in the image file and in the manifest
_SAMPLE = 500  # lines of the manifest that are read


@dataclass
class Workload:
    """Images that a prompt file asks for, those that are done, and the number of each size (None: the model's)."""

    images: int = 0
    done: int = 0
    sizes: Counter[Size | None] = field(default_factory=Counter)

    def add(self, request: Request, count: int) -> None:
        """Add the images of a line."""
        self.images += count
        self.sizes[request.size] += count


def estimate(workload: Workload, model: ModelIdentity, folder: Path, format: str, bad: int = 0) -> Plan:
    """The plan of a run. Time and disk space are estimated from the images that the folder has.

    Without any, the time is unknown, and the disk space is estimated from the number of pixels.
    """
    left = workload.images - workload.done
    measured = measure_folder(folder)
    if measured is not None:
        seconds, size = measured
        space, duration = left * size, left * seconds
    else:
        pixels = sum(count * _pixels(size or model.default_size) for size, count in workload.sizes.items())
        whole = pixels * _BYTES_PER_PIXEL[format] + workload.images * _BYTES_PER_RECORD
        space, duration = whole * left / workload.images if workload.images else 0, None
    return Plan(
        images=workload.images,
        done=workload.done,
        bad=bad,
        sizes=count_sizes(workload, model),
        bytes=int(space),
        seconds=duration,
    )


def measure_folder(folder: Path) -> tuple[float, float] | None:
    """Mean (seconds, bytes) of an image in the folder, or None if it has none."""
    seconds, sizes = [], []
    with suppress(OSError):
        for line, entry in islice(read_lines(folder), _SAMPLE):
            if entry is not None and entry.timings:
                seconds.append(sum(entry.timings.values()))
                sizes.append(entry.bytes + len(line))
    if not seconds:
        return None
    return sum(seconds) / len(seconds), sum(sizes) / len(sizes)


def count_sizes(workload: Workload, model: ModelIdentity) -> dict[str, int]:
    """The number of images of each size: {"256x256": 12}."""
    counts: Counter[str] = Counter()
    for size, count in workload.sizes.items():
        size = size or model.default_size
        counts[size_text(size) if size else "the model's size"] += count
    return dict(counts)


def cell_size(workload: Workload, model: ModelIdentity) -> Size | None:
    """The smallest (width, height) that every image fits into; None if only the model or an image can tell."""
    sizes = [size or model.default_size for size in workload.sizes]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None
    return max(width for width, _ in known), max(height for _, height in known)


def format_duration(seconds: float) -> str:
    """90 -> "1 min 30 s"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60} min"


def format_bytes(count: float) -> str:
    """1_500_000 -> "1.5 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _pixels(size: Size | None) -> int:
    return size[0] * size[1] if size else 256 * 256
