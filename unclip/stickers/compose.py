"""Scene composition: objects, their positions, the background, and the split into training and held-out scenes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from unclip.errors import DataError, did_you_mean
from unclip.requests.values import show
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, PlacedObject, Scene
from unclip.stickers.sprites import load_nouns

T = TypeVar("T")

SPLITS = ("train", "held_out")

HELD_OUT_PERCENT = 8

COLOURS = tuple(BACKGROUNDS)

# A network learns a sprite separately for each size and offset from its grid of patches. Three sizes (24, 40 and 52 px
# of 64) and a grid of 4 px for every object's square keep that within reach of small networks.
GRID = 1 / 16

SMALL, MEDIUM, LARGE = 0.375, 0.625, 0.8125

_MARGIN = 0.012  # kept free at the edges of a cell, as a fraction of the canvas: 0.8 px at 64 px

Cell = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the canvas


@dataclass(frozen=True)
class SceneOptions:
    """The distribution of scenes: by default 45% single objects, 35% pairs, 20% counts.

    Attributes:
        split: "train", or "held_out" for the combinations that training never uses (see ``is_held_out``).
        singles: Fraction of single objects, 0 to 1.
        alike: Number of consecutive scenes of a stream that share a background, so that the background
            alone does not identify the scenes of a batch; at least 1.
        nouns: The nouns to use, at least two; empty for all of the atlas.
        spread: Maximum distance of an object from the middle of its cell, in grid steps. At 0, the first of two objects
            "next to" each other is also always on the left.
        hard_pairs: Whether a pair at an even index of a stream is followed by the same pair with its objects swapped,
            so that only the objects' positions tell the two apart. After "next to", whose caption would hold for
            both, and after other kinds, another scene of the same kind follows.
        counts: Fraction of counts among the scenes that are not single objects, 0 to 1.

    Raises:
        DataError: an unknown split or noun, or only one noun.
    """

    split: str = "train"
    singles: float = 0.45
    alike: int = 1
    nouns: tuple[str, ...] = ()
    spread: int = 2
    hard_pairs: bool = False
    counts: float = 4 / 11

    def __post_init__(self) -> None:
        object.__setattr__(self, "nouns", tuple(self.nouns))
        if self.split not in SPLITS:
            raise DataError(f"scenes have no split {show(self.split)}; {did_you_mean(self.split, SPLITS)}")
        for noun in self.nouns:
            if noun not in load_nouns():
                raise DataError(f"scenes have no noun {show(noun)}; {did_you_mean(noun, load_nouns())}")
        if len(self.nouns) == 1:
            raise DataError(f"scenes need at least two nouns, not only {show(self.nouns[0])}")


def compose_scene(
    rng: np.random.Generator, options: SceneOptions, background: str | None = None, like: Scene | None = None
) -> Scene:
    """Compose a random scene.

    Args:
        rng: Source of randomness.
        options: The distribution of scenes; ``alike`` and ``hard_pairs`` apply to streams only.
        background: One of BACKGROUNDS, or None for a random one.
        like: A scene whose kind and relation are used, or None for random ones.

    Raises:
        DataError: the nouns allow no scene of the chosen kind in the split.
    """
    nouns = options.nouns or tuple(load_nouns())
    kind = _random_kind(rng, options)  # always called, so that `like` shifts no later random number
    kind = kind if like is None else like.kind
    relation = None
    if kind == "pair":
        relation = choose(rng, RELATIONS) if like is None else like.relation
    count = choose(rng, COUNTS) if kind == "count" else None
    # Only the properties that decide the split are sampled again, so both splits have the same fractions of all others.
    for _ in range(10_000):
        colour = choose(rng, COLOURS) if background is None else background
        names = (choose(rng, nouns), choose(rng, nouns)) if kind == "pair" else (choose(rng, nouns),)
        distinct = len(set(names)) == len(names)
        if distinct and _is_held_out(_combination(names, colour, count)) == (options.split == "held_out"):
            break
    else:
        raise DataError(
            f"these {len(nouns)} nouns have no {kind} scene in the split {show(options.split)}: give more nouns"
        )
    if relation is not None:
        return Scene(_place_pair(rng, names, relation, options.spread), colour, kind, relation=relation)
    if count is not None:
        return Scene(_place_group(rng, names[0], count, options.spread), colour, kind, count=count)
    placed, size_word = _place_single(rng, names[0], options.spread)
    return Scene((placed,), colour, kind, size_word=size_word)


def is_held_out(scene: Scene) -> bool:
    """Return whether a scene's combination is held out of training.

    The split holds out 8% of the combinations (object, background) of single objects, 8% of the unordered pairs of
    objects, and 8% of the combinations (object, count).
    """
    names = tuple(placed.name for placed in scene.objects[: 2 if scene.kind == "pair" else 1])
    return _is_held_out(_combination(names, scene.background, scene.count))


def swap_objects(scene: Scene) -> Scene:
    """Return a pair with its two objects exchanged: the second now has the relation to the first."""
    first, second = scene.objects
    return replace(scene, objects=(replace(first, name=second.name), replace(second, name=first.name)))


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return a random element. Many times faster than ``rng.choice``."""
    return options[int(rng.random() * len(options))]


def _random_kind(rng: np.random.Generator, options: SceneOptions) -> str:
    u = rng.random()
    if u < options.singles:
        return "single"
    return "pair" if u < 1 - (1 - options.singles) * options.counts else "count"


def _place_single(rng: np.random.Generator, name: str, spread: int) -> tuple[PlacedObject, str | None]:
    whole = (0.0, 0.0, 1.0, 1.0)
    u = rng.random()
    if u < 0.125:
        return _place(rng, name, whole, SMALL, spread), "small"
    if u < 0.25:
        return _place(rng, name, whole, LARGE, spread), "large"
    return _place(rng, name, whole, MEDIUM, spread), None


def _place_pair(rng: np.random.Generator, names: Sequence[str], relation: str, spread: int) -> tuple[PlacedObject, ...]:
    first, second = (0.0, 0.2, 0.5, 0.8), (0.5, 0.2, 1.0, 0.8)
    if relation in ("above", "below"):
        first, second = _transpose(first), _transpose(second)
    if relation in ("right of", "below") or (relation == "next to" and spread and rng.random() < 0.5):
        first, second = second, first
    return _place(rng, names[0], first, SMALL, spread), _place(rng, names[1], second, SMALL, spread)


def _place_group(rng: np.random.Generator, name: str, count: int, spread: int) -> tuple[PlacedObject, ...]:
    cells = choose(rng, _LAYOUTS[count])
    if rng.random() < 0.5:
        cells = tuple((1 - right, 1 - bottom, 1 - left, 1 - top) for left, top, right, bottom in cells)
    return tuple(_place(rng, name, cell, SMALL, spread) for cell in cells)


def _place(rng: np.random.Generator, name: str, cell: Cell, size: float, spread: int) -> PlacedObject:
    """Place an object's square on the grid, wholly inside a cell and at most `spread` steps from its middle."""
    left, top, right, bottom = cell
    return PlacedObject(name, _centre(rng, left, right, size, spread), _centre(rng, top, bottom, size, spread), size)


def _centre(rng: np.random.Generator, low: float, high: float, size: float, spread: int) -> float:
    first, last = math.ceil((low + _MARGIN) / GRID), math.floor((high - _MARGIN - size) / GRID)
    middle = math.floor((low + high - size) / 2 / GRID)
    first, last = max(first, middle - spread), min(last, middle + spread)
    return (first + int(rng.random() * (last + 1 - first))) * GRID + size / 2


def _transpose(cell: Cell) -> Cell:
    left, top, right, bottom = cell
    return top, left, bottom, right


def _grid(rows: Sequence[tuple[float, float, int, float, float]]) -> tuple[Cell, ...]:
    """Return rows of equal cells; each row is given as (top, bottom, number of cells, left, right)."""
    cells = []
    for top, bottom, n, left, right in rows:
        width = (right - left) / n
        cells += [(left + i * width, top, left + (i + 1) * width, bottom) for i in range(n)]
    return tuple(cells)


_ROW_OF_TWO = _grid([(0.2, 0.8, 2, 0.0, 1.0)])

_DIAGONAL = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0))

_TRIANGLE = _grid([(0.0, 0.5, 1, 0.25, 0.75), (0.5, 1.0, 2, 0.0, 1.0)])

_SQUARE = _grid([(0.0, 0.5, 2, 0.0, 1.0), (0.5, 1.0, 2, 0.0, 1.0)])

_LAYOUTS = MappingProxyType(  # count -> the possible lists of cells
    {2: (_ROW_OF_TWO, tuple(_transpose(cell) for cell in _ROW_OF_TWO), _DIAGONAL), 3: (_TRIANGLE,), 4: (_SQUARE,)}
)


def _combination(names: Sequence[str], background: str, count: int | None) -> str:
    if len(names) == 2:
        return "pair|" + "|".join(sorted(names))
    return f"count|{names[0]}|{count}" if count is not None else f"single|{names[0]}|{background}"


def _is_held_out(combination: str) -> bool:
    return zlib.crc32(combination.encode()) % 100 < HELD_OUT_PERCENT
