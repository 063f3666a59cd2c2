"""Scene composition: objects, their positions, the background, and the split into training and held-out scenes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from unclip.errors import DataError, did_you_mean
from unclip.models.layout import ARRANGEMENTS
from unclip.requests.values import show
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, Layout, PlacedObject, Scene
from unclip.stickers.sprites import DEFAULT_STYLE, STYLES, Noun, load_nouns

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
        nouns: The nouns to use, at least two; empty for all.
        spread: Maximum distance of an object from the middle of its cell, in grid steps. At 0, the first of two objects
            "next to" each other is also always on the left.
        hard_pairs: Whether a pair at an even index of a stream is followed by the same pair with its objects swapped,
            so that only the objects' positions tell the two apart. After "next to", whose caption would hold for
            both, and after other kinds, another scene of the same kind follows.
        counts: Fraction of counts among the scenes that are not single objects, 0 to 1.
        layouts: Whether the objects of a scene follow one Layout, the decoder's micro-conditioning.
        vary: Whether objects are also mirrored, and larger or smaller by one grid step; always by a Layout.
        styles: Styles of the sprites, each as likely as the others, or twice as likely if named twice. Captions mention
            the style only if there are several.

    Raises:
        DataError: an unknown split, noun or style, only one noun, or no style.
    """

    split: str = "train"
    singles: float = 0.45
    alike: int = 1
    nouns: tuple[str, ...] = ()
    spread: int = 2
    hard_pairs: bool = False
    counts: float = 4 / 11
    layouts: bool = False
    vary: bool = False
    styles: tuple[str, ...] = (DEFAULT_STYLE,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nouns", tuple(self.nouns))
        object.__setattr__(self, "styles", (self.styles,) if isinstance(self.styles, str) else tuple(self.styles))
        if self.split not in SPLITS:
            raise DataError(f"scenes have no split {show(self.split)}; {did_you_mean(self.split, SPLITS)}")
        for noun in self.nouns:
            if noun not in load_nouns():
                raise DataError(f"scenes have no noun {show(noun)}; {did_you_mean(noun, load_nouns())}")
        if len(self.nouns) == 1:
            raise DataError(f"scenes need at least two nouns, not only {show(self.nouns[0])}")
        for style in self.styles:
            if style not in STYLES:
                raise DataError(f"scenes have no style {show(style)}; {did_you_mean(style, STYLES)}")
        if not self.styles:
            raise DataError(f"scenes need a style of the sprites: {', '.join(STYLES)}")

    @property
    def has_layouts(self) -> bool:
        """Whether scenes have a Layout."""
        return self.layouts or self.vary

    @property
    def names_styles(self) -> bool:
        """Whether captions may mention the style."""
        return len(set(self.styles)) > 1


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
    known = load_nouns()
    for _ in range(10_000):
        colour = choose(rng, COLOURS) if background is None else background
        names = (choose(rng, nouns), choose(rng, nouns)) if kind == "pair" else (choose(rng, nouns),)
        distinct = len(set(names)) == len(names)
        styles = [style for style in options.styles if not any(style in known[name].not_in for name in names)]
        is_in_split = _is_held_out(_combination(names, colour, count)) == (options.split == "held_out")
        if distinct and styles and is_in_split:
            break
    else:
        raise DataError(
            f"these {len(nouns)} nouns have no {kind} scene in the split {show(options.split)}: give more nouns"
        )
    style = choose(rng, styles) if options.names_styles else styles[0]
    layout = random_layout(rng, options.spread, options.vary) if options.has_layouts else None
    place = _Placement(rng, options.spread, layout, known)
    size_word = None
    if relation is not None:
        objects = place.pair(names, relation)
    elif count is not None:
        objects = place.group(names[0], count)
    else:
        placed, size_word = place.single(names[0])
        objects = (placed,)
    return Scene(objects, colour, kind, relation, count, size_word, style, layout)


def random_layout(rng: np.random.Generator, spread: int, vary: bool) -> Layout:
    """Return a random layout, whatever the scene: each scene follows it as far as it has room.

    Args:
        rng: Source of randomness.
        spread: Maximum distance from the middles of the cells, in grid steps.
        vary: Whether objects are mirrored and resized too.
    """
    mirrored, dx, dy, resize, arrangement = rng.random(5)
    return Layout(
        mirrored=bool(vary and mirrored < 0.5),
        dx=int(dx * (2 * spread + 1)) - spread,
        dy=int(dy * (2 * spread + 1)) - spread,
        resize=int(resize * 3) - 1 if vary else 0,
        arrangement=int(arrangement * ARRANGEMENTS),
    )


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
    mirrored = scene.layout is not None and scene.layout.mirrored
    nouns = load_nouns()
    swapped = (replace(first, name=second.name), replace(second, name=first.name))
    return replace(
        scene, objects=tuple(replace(each, mirrored=mirrored and nouns[each.name].mirror) for each in swapped)
    )


def choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return a random element. Many times faster than ``rng.choice``."""
    return options[int(rng.random() * len(options))]


def _random_kind(rng: np.random.Generator, options: SceneOptions) -> str:
    u = rng.random()
    if u < options.singles:
        return "single"
    return "pair" if u < 1 - (1 - options.singles) * options.counts else "count"


@dataclass(frozen=True)
class _Placement:
    """Places the objects of a scene: each at random, or all as a layout says."""

    rng: np.random.Generator
    spread: int
    layout: Layout | None
    nouns: Mapping[str, Noun]

    def single(self, name: str) -> tuple[PlacedObject, str | None]:
        """Return the object, and the word for its size."""
        whole = (0.0, 0.0, 1.0, 1.0)
        u = self.rng.random()
        if u < 0.125:
            return self._place(name, whole, SMALL), "small"
        if u < 0.25:
            return self._place(name, whole, LARGE), "large"
        return self._place(name, whole, MEDIUM), None

    def pair(self, names: Sequence[str], relation: str) -> tuple[PlacedObject, ...]:
        """Return two objects, the first in the relation to the second."""
        first, second = (0.0, 0.2, 0.5, 0.8), (0.5, 0.2, 1.0, 0.8)
        if relation in ("above", "below"):
            first, second = _transpose(first), _transpose(second)
        # With a layout, the first of two "next to" each other is on the left: no layout tells which.
        is_free = relation == "next to" and self.layout is None and self.spread
        if relation in ("right of", "below") or (is_free and self.rng.random() < 0.5):
            first, second = second, first
        return self._place(names[0], first, SMALL), self._place(names[1], second, SMALL)

    def group(self, name: str, count: int) -> tuple[PlacedObject, ...]:
        """Return several of one object."""
        return tuple(self._place(name, cell, SMALL) for cell in self._cells(_LAYOUTS[count]))

    def _cells(self, choices: Sequence[tuple[Cell, ...]]) -> tuple[Cell, ...]:
        if self.layout is None:
            cells = choose(self.rng, choices)
            turned = self.rng.random() < 0.5
            return tuple((1 - x1, 1 - y1, 1 - x0, 1 - y0) for x0, y0, x1, y1 in cells) if turned else cells
        flips, index = divmod(self.layout.arrangement, len(choices))
        cells = choices[index]
        if flips % 2:
            cells = tuple((left, 1 - bottom, right, 1 - top) for left, top, right, bottom in cells)
        if self.layout.mirrored:
            cells = tuple((1 - right, top, 1 - left, bottom) for left, top, right, bottom in cells)
        return cells

    def _place(self, name: str, cell: Cell, size: float) -> PlacedObject:
        """Place an object's square on the grid, wholly inside a cell and at most `spread` steps from its middle."""
        left, top, right, bottom = cell
        layout = self.layout
        if layout is None:
            x, y = self._random_centre(left, right, size), self._random_centre(top, bottom, size)
            return PlacedObject(name, x, y, size)
        # Two objects side by side leave no room for larger ones.
        size += min(layout.resize, 0 if size == SMALL else 1) * GRID
        x, y = _centre(left, right, size, layout.dx), _centre(top, bottom, size, layout.dy)
        return PlacedObject(name, x, y, size, layout.mirrored and self.nouns[name].mirror)

    def _random_centre(self, low: float, high: float, size: float) -> float:
        first, middle, last = _steps(low, high, size)
        first, last = max(first, middle - self.spread), min(last, middle + self.spread)
        return (first + int(self.rng.random() * (last + 1 - first))) * GRID + size / 2


def _centre(low: float, high: float, size: float, offset: int) -> float:
    """Return the centre of an object `offset` grid steps from the middle of a cell, as far as there is room."""
    first, middle, last = _steps(low, high, size)
    return min(max(middle + offset, first), last) * GRID + size / 2


def _steps(low: float, high: float, size: float) -> tuple[int, int, int]:
    """Return the first, the middle and the last grid line at which an object of `size` may start in a cell."""
    first, last = math.ceil((low + _MARGIN) / GRID), math.floor((high - _MARGIN - size) / GRID)
    return first, math.floor((low + high - size) / 2 / GRID), last


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
