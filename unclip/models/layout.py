"""The layout of an image as conditioning: what a caption leaves open, in LAYOUT_SIZE numbers.

SDXL calls this micro-conditioning (Podell et al. 2023, arXiv:2307.01952, section 2.2). A decoder that is told whether
objects are mirrored, where they are and how large need not guess it. At generation, a layout is drawn at random, so
that seeds differ. A layout of zeros is left open.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LAYOUT_SIZE = 8
ARRANGEMENTS = 3
GRID = 1 / 16
"""A grid step, as a fraction of the image."""
STEPS = 2
"""Grid steps that an object can be from the middle of its place."""
RESIZED = 0.1
"""Fraction by which one step enlarges an object of medium size."""
FREQUENCIES = (1, 2, 4)
MAP_CHANNELS = 5 + 4 * len(FREQUENCIES)


def layout_vector(mirrored: bool, dx: int, dy: int, resize: int, arrangement: int) -> tuple[float, ...]:
    """The conditioning, from -1 to 1. dx, dy: from -STEPS to STEPS; resize: -1, 0 or 1; arrangement: 0, 1 or 2."""
    places = [0.0] * ARRANGEMENTS
    places[arrangement] = 1.0
    return (1.0, 1.0 if mirrored else -1.0, dx / STEPS, dy / STEPS, float(resize), *places)


def random_layout(seed: int, spread: int, vary: bool = True) -> tuple[float, ...]:
    """A layout for an image that is generated, the same for a seed on every machine.

    spread: the largest step off a place. vary: whether objects are mirrored and enlarged too. Training also has
    smaller objects, which are left out here, because objects of few pixels are recognisable less often.
    """
    rng = random.Random(f"layout {seed}")
    dx, dy = (rng.randint(-spread, spread) for _ in range(2))
    mirrored, resize, arrangement = rng.random() < 0.5, rng.randint(0, 1), rng.randrange(ARRANGEMENTS)
    return layout_vector(vary and mirrored, dx, dy, resize if vary else 0, arrangement)


def layout_map(layout: Tensor, side: int) -> Tensor:
    """Layouts `b l` -> coordinates `b m side side`: where each position is in the image, and in the layout.

    The first two channels are the position in the image, -1 .. 1. The others are 0 where a layout is left open: a 1,
    the position in the frame of an object in the middle, which is moved, resized and mirrored with it, and sines and
    cosines of that. Time conditioning is the same everywhere, and a convolution cannot tell where it is: with a layout
    in the time conditioning alone, a decoder had not learned in 50,000 images to place objects.
    """
    import torch  # noqa: PLC0415 (scenes, which need no torch, import this module)

    line = ((torch.arange(side, device=layout.device) + 0.5) / side * 2 - 1).to(layout)
    x = line.expand(len(layout), side, side)  # b side side, rising from left to right
    y = x.mT
    given, mirrored, dx, dy, resize = (layout[:, i, None, None] for i in range(5))  # b 1 1
    size = 1 + RESIZED * resize
    u = mirrored * (x - 2 * GRID * STEPS * dx) / size
    v = given * (y - 2 * GRID * STEPS * dy) / size
    waves = [
        wave(math.pi * k * place) * given for k in FREQUENCIES for place in (u, v) for wave in (torch.sin, torch.cos)
    ]
    return torch.stack([x, y, given.expand_as(x), u, v, *waves], dim=1)  # b m side side
