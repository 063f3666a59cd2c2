"""Endless training scenes: sticker-like objects on flat colours, drawn and captioned.

``scene_at(seed, index)`` is a pure function, so that a run that stops at image n goes on at image n + 1, and
any number of workers share one stream by taking every k-th index. The captions are in ``captions.py``.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from unclip.errors import DataError
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, Placed, Scene

SPLITS = ("train", "held_out")

HELD_OUT_PERCENT = 8

SINGLES = 0.45

COUNTED = 4 / 11

COLOURS = tuple(BACKGROUNDS)

# A network learns a sprite again at each size, and at each offset from the patches that it draws: so there are three
# sizes (24, 40 and 52 px of 64), and every object's square stands on a grid of 4 px. Small networks learn that.
GRID = 1 / 16

SPREAD = 2

SMALL, MEDIUM, LARGE = 0.375, 0.625, 0.8125

_MARGIN = 0.012  # kept free at the edges of a cell, as a fraction of the canvas: 0.8 px at 64 px

Cell = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the canvas


def draw_scene(
    rng: np.random.Generator,
    nouns: Sequence[str],
    split: str = "train",
    singles: float = SINGLES,
    background: str | None = None,
    spread: int = SPREAD,
    like: Scene | None = None,
    counts: float = COUNTED,
) -> Scene:
    """Draw a scene of at least two ``nouns``: by default 45% single objects, 35% pairs, 20% counts.

    Args:
        split: "train", or "held_out" for the combinations that training never shows (see ``is_held_out``).
        singles: The share of single objects.
        background: One of BACKGROUNDS, or None for any.
        spread: How many steps of the grid an object may stand off the middle of its place.
        like: A scene whose kind and relation this one is to have.
        counts: The share of counts in what is not a single object; by default pairs are to them as seven to four.

    Raises:
        DataError: an unknown split, or fewer than two nouns.
    """
    if split not in SPLITS:
        raise DataError(f"there is no split {split!r}: use one of {', '.join(SPLITS)}")
    if len(nouns) < 2:
        raise DataError(f"scenes need at least two nouns, not {len(nouns)}")
    wanted = split == "held_out"
    share = rng.random()
    kind = "single" if share < singles else "pair" if share < 1 - (1 - singles) * counts else "count"
    kind = kind if like is None else like.kind
    relation = None if kind != "pair" else pick(rng, RELATIONS) if like is None else like.relation
    count = pick(rng, COUNTS) if kind == "count" else None
    # Only what decides the split is drawn again, so that both splits have the same shares of everything else.
    for _ in range(10_000):
        colour = background or pick(rng, COLOURS)
        names = (pick(rng, nouns), pick(rng, nouns)) if kind == "pair" else (pick(rng, nouns),)
        distinct = kind != "pair" or names[0] != names[1]
        if distinct and _held_out(_combination(names, colour, count)) == wanted:
            break
    else:
        raise DataError(f"these {len(nouns)} nouns have no {kind} scene in the split {split!r}: give more nouns")
    if kind == "single":
        placed, size_word = _single(rng, names[0], spread)
        return Scene((placed,), colour, kind, size_word=size_word)
    if kind == "pair":
        return Scene(_pair(rng, names, relation, spread), colour, kind, relation=relation)
    return Scene(_group(rng, names[0], count, spread), colour, kind, count=count)


def is_held_out(scene: Scene) -> bool:
    """Whether a scene's combination is kept out of training.

    Of single objects, 8% of (object, background) are; of pairs, 8% of unordered pairs of objects; of counts,
    8% of (object, count).
    """
    names = tuple(placed.name for placed in scene.objects[: 2 if scene.kind == "pair" else 1])
    return _held_out(_combination(names, scene.background, scene.count))


def exchanged(scene: Scene) -> Scene:
    """A pair with each object in the other's place: the same relation, of the second to the first."""
    first, second = scene.objects
    return replace(scene, objects=(replace(first, name=second.name), replace(second, name=first.name)))


def _single(rng: np.random.Generator, name: str, spread: int) -> tuple[Placed, str | None]:
    whole = (0.0, 0.0, 1.0, 1.0)
    share = rng.random()
    if share < 0.125:
        return _place(rng, name, whole, SMALL, spread), "small"
    if share < 0.25:
        return _place(rng, name, whole, LARGE, spread), "large"
    return _place(rng, name, whole, MEDIUM, spread), None


def _pair(rng: np.random.Generator, names: tuple[str, str], relation: str, spread: int) -> tuple[Placed, ...]:
    first, second = (0.0, 0.2, 0.5, 0.8), (0.5, 0.2, 1.0, 0.8)
    if relation in ("above", "below"):
        first, second = _transposed(first), _transposed(second)
    if relation in ("right of", "below") or (relation == "next to" and spread and rng.random() < 0.5):
        first, second = second, first
    return _place(rng, names[0], first, SMALL, spread), _place(rng, names[1], second, SMALL, spread)


def _group(rng: np.random.Generator, name: str, count: int, spread: int) -> tuple[Placed, ...]:
    cells = pick(rng, _LAYOUTS[count])
    if rng.random() < 0.5:
        cells = tuple((1 - right, 1 - bottom, 1 - left, 1 - top) for left, top, right, bottom in cells)
    return tuple(_place(rng, name, cell, SMALL, spread) for cell in cells)


def _place(rng: np.random.Generator, name: str, cell: Cell, size: float, spread: int) -> Placed:
    """Put an object's square on the grid in a cell that holds it whole, at most `spread` steps off its middle."""
    left, top, right, bottom = cell
    return Placed(name, _centre(rng, left, right, size, spread), _centre(rng, top, bottom, size, spread), size)


def _centre(rng: np.random.Generator, low: float, high: float, size: float, spread: int) -> float:
    first, last = math.ceil((low + _MARGIN) / GRID), math.floor((high - _MARGIN - size) / GRID)
    middle = math.floor((low + high - size) / 2 / GRID)
    first, last = max(first, middle - spread), min(last, middle + spread)
    return (first + int(rng.random() * (last + 1 - first))) * GRID + size / 2


def _transposed(cell: Cell) -> Cell:
    left, top, right, bottom = cell
    return top, left, bottom, right


def _grid(rows: Sequence[tuple[float, float, int, float, float]]) -> tuple[Cell, ...]:
    """Rows of equal cells: each row is (top, bottom, number of cells, left, right)."""
    cells = []
    for top, bottom, n, left, right in rows:
        width = (right - left) / n
        cells += [(left + i * width, top, left + (i + 1) * width, bottom) for i in range(n)]
    return tuple(cells)


_ROW_OF_TWO = _grid([(0.2, 0.8, 2, 0.0, 1.0)])

_DIAGONAL = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0))

_TRIANGLE = _grid([(0.0, 0.5, 1, 0.25, 0.75), (0.5, 1.0, 2, 0.0, 1.0)])

_SQUARE = _grid([(0.0, 0.5, 2, 0.0, 1.0), (0.5, 1.0, 2, 0.0, 1.0)])

_LAYOUTS = MappingProxyType(  # count -> cells, to choose from
    {2: (_ROW_OF_TWO, tuple(_transposed(cell) for cell in _ROW_OF_TWO), _DIAGONAL), 3: (_TRIANGLE,), 4: (_SQUARE,)}
)


def _combination(names: Sequence[str], background: str, count: int | None) -> str:
    if len(names) == 2:
        return "pair|" + "|".join(sorted(names))
    return f"count|{names[0]}|{count}" if count is not None else f"single|{names[0]}|{background}"


def _held_out(combination: str) -> bool:
    return zlib.crc32(combination.encode()) % 100 < HELD_OUT_PERCENT


def pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.random() * len(options))]  # many times quicker than rng.choice
