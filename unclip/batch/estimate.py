"""What a prompt file asks for, and about how long that takes and how much room it needs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from unclip.batch.output_folder import MANIFEST
from unclip.checkpoints.identity import Model
from unclip.requests.request import Request
from unclip.requests.values import size_text

# Of the model "stickers" on two server cores at its defaults: 64x64, and what the upsampler to 256x256 adds.
_PRIOR_STEP, _DECODER_STEP, _UPSAMPLER_STEP = 0.002, 0.006, 0.012  # seconds an image
_PRIOR_STEPS, _DECODER_STEPS, _UPSAMPLER_STEPS = 10, 8, 2
_BYTES_A_PIXEL = {"png": 1.2, "jpg": 0.5, "jpeg": 0.5, "webp": 0.3}
_BYTES_OF_RECORD = 3000  # in the file and in the manifest
_SAMPLE = 500  # lines of the manifest


@dataclass
class Amount:
    """Images asked for and those of them that are done; how many of each size (None: the model's own) and steps."""

    images: int = 0
    done: int = 0
    sizes: Counter[tuple[int, int] | None] = field(default_factory=Counter)
    steps: Counter[tuple[int | None, int | None, int | None]] = field(default_factory=Counter)

    def add(self, request: Request, count: int) -> None:
        self.images += count
        self.sizes[request.size] += count
        self.steps[request.prior_steps, request.steps, request.upsampler_steps] += count


def measure(amount: Amount, model: Model, folder: Path, format: str) -> tuple[float | None, int, str]:
    """(seconds, or None where nothing is known; bytes; where the seconds come from) of the images still to be made.

    An image takes as long as those that the folder has took; where there are none, as the bundled model did on the
    machine that it was measured on.
    """
    left = amount.images - amount.done
    seconds, size = _measured(folder)
    pixels = sum(count * _pixels(side or _largest(model)) for side, count in amount.sizes.items())
    share = left / amount.images if amount.images else 0
    room = left * size if size else share * (pixels * _BYTES_A_PIXEL[format] + amount.images * _BYTES_OF_RECORD)
    if seconds:
        return left * seconds, int(room), "at the speed of the pictures that are there"
    if model.name != "stickers":
        return None, int(room), "the first pictures will tell"
    low, upsampled = model.sizes[0] if model.sizes else None, 0
    for side, count in amount.sizes.items():
        upsampled += count * (side != low)
    total = 0.0
    for (prior, decoder, upsampler), count in amount.steps.items():
        total += count * _PRIOR_STEP * (prior or _PRIOR_STEPS)
        total += count * _DECODER_STEP * (decoder or _DECODER_STEPS)
        total += count * upsampled / amount.images * _UPSAMPLER_STEP * (upsampler or _UPSAMPLER_STEPS)
    return total * share, int(room), "on two processor cores"


def size_counts(amount: Amount, model: Model) -> dict[str, int]:
    """{"256x256": 12}: how many images of each size."""
    counts: Counter[str] = Counter()
    for size, count in amount.sizes.items():
        size = size or _largest(model)
        counts[size_text(size) if size else "the model's size"] += count
    return dict(counts)


def largest(amount: Amount, model: Model) -> tuple[int, int] | None:
    """The smallest (width, height) that every image fits into; None where only the model or a picture can tell."""
    sizes = [size or _largest(model) for size in amount.sizes]
    if not sizes or None in sizes:
        return None
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


def spoken_time(seconds: float) -> str:
    """90 -> "1 min 30 s"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60} min"


def spoken_bytes(count: float) -> str:
    """1_500_000 -> "1.5 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def _measured(folder: Path) -> tuple[float | None, float | None]:
    """Seconds and bytes of an image, over the first of those that the folder has."""
    seconds, sizes = [], []
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            for line in islice(manifest, _SAMPLE):
                entry = json.loads(line)
                seconds.append(float(sum(entry["timings"].values())))
                sizes.append(int(entry["bytes"]) + len(line))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass  # no folder yet, or a line cut off by a kill
    if not seconds:
        return None, None
    return sum(seconds) / len(seconds), sum(sizes) / len(sizes)


def _largest(model: Model) -> tuple[int, int] | None:
    return model.sizes[-1] if model.sizes else None


def _pixels(size: tuple[int, int] | None) -> int:
    return size[0] * size[1] if size else 256 * 256
