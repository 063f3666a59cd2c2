"""Plots of loss curves, drawn with Pillow."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (960, 540)
SCALE = 2  # of the drawing, which is then reduced for smooth lines
LEFT, TOP, RIGHT, BOTTOM = 84, 56, 92, 56  # margins of the axes in pixels
INK, MUTED, GRID, RANGE, AVERAGE = "#262a33", "#6e7480", "#e5e8ee", "#c3d7f2", "#1f62be"
LOG_RATIO = 8  # of the largest to the smallest loss, from which on the axis is logarithmic
WINDOW = 0.02  # fraction of the curve over which the average is taken


@dataclass(frozen=True)
class Axis:
    """An axis from the value `low` at the pixel `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """About `count` round values on the axis."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                values = [d * 10.0**decade for decade in decades for d in digits]
                inside = [value for value in values if self.low <= value <= self.high]
                if len(inside) <= count + 2:
                    return inside
            return inside[:: math.ceil(len(inside) / count)]
        rough = (self.high - self.low) / count
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * digit for digit in (1, 2, 5, 10) if unit * digit >= rough)
        first = math.ceil(self.low / step)
        return [step * k for k in range(first, math.floor(self.high / step) + 1)]


def plot_loss(title: str, steps: np.ndarray, losses: np.ndarray) -> Image.Image:
    """A plot of the losses of some steps: their range in light colour, and their moving average as a line.

    steps, losses: `n`, increasing steps and finite losses, at least one.
    """
    average = moving_average(losses, max(1, round(WINDOW * len(losses))))
    x, y = _axes(steps, losses)
    image = Image.new("RGB", (SIZE[0] * SCALE, SIZE[1] * SCALE), "white")
    draw = ImageDraw.Draw(image)
    _draw_axes(draw, x, y, title)
    columns = np.clip([round(x.place(step)) for step in steps], round(x.start), round(x.end))
    bounds = np.flatnonzero(np.diff(columns, prepend=-1))  # the first step of each column of pixels
    lows, highs = np.minimum.reduceat(losses, bounds), np.maximum.reduceat(losses, bounds)
    means = np.add.reduceat(average, bounds) / np.diff(bounds, append=len(losses))
    places = columns[bounds].tolist()
    zigzag = [(place, y.place(value)) for place, *pair in zip(places, lows, highs, strict=True) for value in pair]
    draw.line(zigzag, RANGE, SCALE)
    line = [(place, y.place(mean)) for place, mean in zip(places, means, strict=True)]
    if len(line) > 1:
        draw.line(line, AVERAGE, 2 * SCALE, joint="curve")
    end, radius = line[-1], 4 * SCALE
    draw.ellipse([end[0] - radius, end[1] - radius, end[0] + radius, end[1] + radius], AVERAGE)
    draw.text((end[0] + 10 * SCALE, end[1]), f"{means[-1]:.3g}", AVERAGE, _font(15), anchor="lm")
    return image.resize(SIZE, Image.Resampling.LANCZOS)


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """The mean over `width` values around each; at the ends, over those that there are."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    index = np.arange(len(values))
    low, high = np.maximum(index - (width - 1) // 2, 0), np.minimum(index + width // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _axes(steps: np.ndarray, losses: np.ndarray) -> tuple[Axis, Axis]:
    low, high = float(losses.min()), float(losses.max())
    is_log = low > 0 and high / low > LOG_RATIO
    if is_log:
        low, high = low / 1.2, high * 1.2
    else:
        room = 0.06 * (high - low) or abs(high) or 1.0  # all may be equal
        low, high = (low - room if low < 0 else max(low - room, 0.0)), high + room
    width, height = SIZE
    last = max(float(steps[-1]), float(steps[0]) + 1)
    x = Axis(float(steps[0]), last, LEFT * SCALE, (width - RIGHT) * SCALE)
    return x, Axis(low, high, (height - BOTTOM) * SCALE, TOP * SCALE, is_log)


def _draw_axes(draw: ImageDraw.ImageDraw, x: Axis, y: Axis, title: str) -> None:
    for value in y.ticks():
        place = y.place(value)
        draw.line([(x.start, place), (x.end, place)], GRID, SCALE)
        draw.text((x.start - 10 * SCALE, place), f"{value:.6g}", MUTED, _font(14), anchor="rm")
    draw.line([(x.start, y.start), (x.end, y.start)], MUTED, SCALE)
    for value in x.ticks():
        if value == int(value):
            place = x.place(value)
            draw.line([(place, y.start), (place, y.start + 5 * SCALE)], MUTED, SCALE)
            draw.text((place, y.start + 10 * SCALE), f"{int(value):,}", MUTED, _font(14), anchor="mt")
    draw.text((x.start, 22 * SCALE), title, INK, _font(18), anchor="lm")
    draw.text((x.end, y.start + 32 * SCALE), "step", MUTED, _font(14), anchor="rt")


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)
