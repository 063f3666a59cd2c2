"""The layout of an image as conditioning: what a caption leaves open, in LAYOUT_SIZE numbers.

SDXL calls this micro-conditioning (Podell et al. 2023, arXiv:2307.01952, section 2.2). A decoder that is told whether
the objects are mirrored, where they stand and how large they are need not guess it; to sample, it is drawn at random,
so that seeds differ. Zeros leave a layout open.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT_SIZE = 8
ARRANGEMENTS = 3
GRID = 1 / 16  # of the image: a step
RESIZED = 0.1  # how much larger a step makes an object of the usual size
FREQUENCIES = (1, 2, 4)
MAP_CHANNELS = 5 + 4 * len(FREQUENCIES)
STEPS = 2  # of the grid: the most that an object may stand off its place


def layout_vector(mirrored: bool, dx: int, dy: int, resize: int, arrangement: int) -> tuple[float, ...]:
    """The conditioning, from -1 to 1. dx, dy: from -STEPS to STEPS; resize: -1, 0 or 1; arrangement: 0, 1 or 2."""
    places = [0.0] * ARRANGEMENTS
    places[arrangement] = 1.0
    return (1.0, 1.0 if mirrored else -1.0, dx / STEPS, dy / STEPS, float(resize), *places)


def random_layout(seed: int, spread: int) -> tuple[float, ...]:
    """A layout as training draws them, the same for a seed on every machine. spread: the largest step off a place."""
    rng = random.Random(f"layout {seed}")
    dx, dy = (rng.randint(-spread, spread) for _ in range(2))
    return layout_vector(rng.random() < 0.5, dx, dy, rng.randint(-1, 1), rng.randrange(ARRANGEMENTS))


def layout_map(layout: Tensor, side: int) -> Tensor:
    """Layouts `b l` -> coordinates `b m side side`: where each position lies in the image and in the layout.

    The first two channels are its place in the image, from -1 to 1. The others are 0 where a layout is left open: a 1,
    its place in the frame of an object in the middle, moved, resized and mirrored with it, and that place's sines and
    cosines. Time conditioning is the same everywhere, and a convolution cannot see where it is: told by it alone, a
    decoder had not learned in 50,000 images to put an object where the layout says.
    """
    import torch  # noqa: PLC0415 (scenes, which need no torch, import this module)

    line = ((torch.arange(side).to(layout) + 0.5) / side * 2 - 1).expand(len(layout), side, side)  # b side side, across
    x, y = line, line.mT
    given, mirrored, dx, dy, resize = (layout[:, i, None, None] for i in range(5))
    size = 1 + RESIZED * resize
    u = mirrored * (x - 2 * GRID * STEPS * dx) / size
    v = given * (y - 2 * GRID * STEPS * dy) / size
    waves = [
        wave(math.pi * k * place) * given for k in FREQUENCIES for place in (u, v) for wave in (torch.sin, torch.cos)
    ]
    return torch.stack([x, y, given.expand_as(x), u, v, *waves], dim=1)
