"""Compares an object of an image with its true rendering, placed, resized and mirrored so that it fits best.

The checker (``checker.py``) names the sprite that a piece of an image resembles most, at 64 px. That is lenient: a
blurred patch in the right colours passes. Here the object is compared with the drawing itself, at full resolution. How
like it must be was measured on images that were named without their prompts (tests/stickers/recognition/judged.webp).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from unclip.stickers.recognition.structure import WINDOW, structural_similarity
from unclip.stickers.scene import PlacedObject
from unclip.stickers.sprites import DEFAULT_STYLE, VECTOR_STYLES, load_sprites

MIN_STRUCTURE = 0.47
"""Least structural similarity of a recognisable object. On 164 judged images, agreement is highest at 0.41 (80%, but
too many pass), and as many pass as were named at 0.5 (76%); this is between."""
MIN_EXPLAINED = 0.4
"""Least explained fraction of a recognisable object: structure says little of a flat object in a wrong colour."""

_MARGIN = 1 / 64  # of the image, around the outline: halos and stray edges count
_COARSE = 64  # px; size of the image in which the place is searched first
_SIZES = (0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.24)  # tried first, times the expected size
_FINE_SIZES = (0.96, 0.98, 1.0, 1.02, 1.04)
_MAX_STEPS = 8  # to better neighbours, at each resolution


@dataclass(frozen=True)
class Fit:
    """A sprite placed over an image where it fits best.

    Attributes:
        psnr: In dB, within the outline and a margin, to the rendering on the background.
        explained: 1 minus the ratio of the squared error to the bare background's: 1 is perfect, 0 is the background.
        structure: Lower quartile of the local structural similarity to the rendering, at most 1: high if no part of the
            object is wrong.
        placed: The sprite.
        style: One of sprites.STYLES.
    """

    psnr: float
    explained: float
    structure: float
    placed: PlacedObject
    style: str

    @property
    def is_recognisable(self) -> bool:
        """Whether a viewer would probably name the object without knowing the prompt."""
        return self.structure >= MIN_STRUCTURE and self.explained >= MIN_EXPLAINED


def best_fit(
    image: Image.Image | np.ndarray,
    expected: PlacedObject,
    background: Sequence[float],
    style: str = DEFAULT_STYLE,
) -> Fit:
    """Fit a sprite to the object that an image shows near the expected place.

    Args:
        image: A square image, or RGB, h w 3, uint8.
        expected: The sprite, and roughly its place and size.
        background: Colour of the background, RGB, 0 to 255.
        style: Of the sprite.

    Raises:
        DataError: there is no such sprite.
    """
    image = (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
    colour = np.asarray(background, np.float32) / 255
    sides = [image.width]
    while sides[0] > _COARSE:
        sides.insert(0, max(_COARSE, sides[0] // 2))
    searches = [_Search.of(image, side, colour, style) for side in sides]
    coarse = searches[0]
    may_mirror = style in VECTOR_STYLES and load_sprites().nouns[expected.name].mirror
    best = max(
        (
            coarse.slide(replace(expected, mirrored=mirrored), size, radius=6, step=2)
            for mirrored in ((False, True) if may_mirror else (False,))
            for size in _SIZES
        ),
        key=_explained,
    )
    best = max((coarse.slide(best.placed, size, radius=2) for size in _FINE_SIZES), key=_explained)
    for search in searches:
        best = search.climb(best.placed)
    return searches[-1].finish(best)


@dataclass(frozen=True)
class _Place:
    """A placed sprite, and how well it explains the image: as `Fit`."""

    placed: PlacedObject
    explained: float


@dataclass(frozen=True, eq=False)
class _Search:
    """A search for the best place of sprites in an image.

    Attributes:
        difference: The image minus its background, h w 3, -1 to 1.
        colour: Of the background, 0 to 1.
        style: Of the sprites.
    """

    difference: np.ndarray
    colour: np.ndarray
    style: str

    @classmethod
    def of(cls, image: Image.Image, side: int, colour: np.ndarray, style: str) -> _Search:
        """Return a search in an image, resized to `side` px."""
        if side != image.width:
            image = image.resize((side, side), Image.Resampling.BOX)
        return cls(np.asarray(image, np.float32) / 255 - colour, colour, style)

    @property
    def side(self) -> int:
        """Width of the image in px."""
        return self.difference.shape[0]

    def climb(self, placed: PlacedObject) -> _Place:
        """Return a place from which no neighbour is better: one pixel away, larger or smaller."""
        best = self.slide(placed, 1.0, radius=1)
        for _ in range(_MAX_STEPS):
            pixel = 1 / (best.placed.size * self.side)
            sizes = [1 + k * pixel for k in (-1, 1)]
            found = max((self.slide(best.placed, size, radius=1) for size in sizes), key=_explained)
            if found.explained <= best.explained:
                break
            best = found
        return best

    def slide(self, around: PlacedObject, size: float, radius: int, step: int = 1) -> _Place:
        """Return the best place within `radius` px of `around`, of the sprite at `size` times its size there."""
        longer = max(2, min(self.side, round(around.size * size * self.side)))
        expected, region = self._expected(around, longer)
        height, width = region.shape
        left, top = round(around.x * self.side - width / 2), round(around.y * self.side - height / 2)
        patch = self._crop(top - radius, left - radius, height + 2 * radius, width + 2 * radius)
        windows = sliding_window_view(patch, (height, width), axis=(0, 1))[::step, ::step]  # i j c h w
        products = np.einsum("ijchw,hwc->ij", windows, expected, optimize=["einsum_path", (0, 1)])
        squares = sliding_window_view((patch**2).sum(axis=2), (height, width))[::step, ::step]  # i j h w
        energies = np.einsum("ijhw,hw->ij", squares, region.astype(np.float32), optimize=["einsum_path", (0, 1)])
        i, j = map(int, np.unravel_index(int((energies - 2 * products).argmin()), products.shape))
        row, column = top - radius + i * step, left - radius + j * step
        x, y = (column + width / 2) / self.side, (row + height / 2) / self.side
        # The difference of large sums is inexact: the best place is compared again, pixel by pixel.
        piece = patch[i * step : i * step + height, j * step : j * step + width]
        error = float(((piece - expected)[region] ** 2).sum())
        placed = PlacedObject(around.name, x, y, longer / self.side, around.mirrored)
        return _Place(placed, 1 - error / max(float((expected**2).sum()), 1e-6))

    def finish(self, best: _Place) -> Fit:
        """Return the fit of the best place."""
        placed = best.placed
        expected, region = self._expected(placed, max(2, round(placed.size * self.side)))
        height, width = region.shape
        top, left = round(placed.y * self.side - height / 2), round(placed.x * self.side - width / 2)
        error = (self._crop(top, left, height, width) - expected)[region]
        truth, inside = np.zeros_like(self.difference), np.zeros((self.side, self.side), bool)
        rows, columns = slice(max(0, top), max(0, top + height)), slice(max(0, left), max(0, left + width))
        seen = truth[rows, columns].shape
        above, before = max(0, -top), max(0, -left)
        truth[rows, columns] = expected[above : above + seen[0], before : before + seen[1]]
        inside[rows, columns] = region[above : above + seen[0], before : before + seen[1]]
        structure = 0.0
        if inside.any():
            window = WINDOW * placed.size
            structure = structural_similarity(self.difference + self.colour, truth + self.colour, inside, window)
        psnr = float(-10 * np.log10(max(float((error**2).mean()), 1e-10)))
        return Fit(psnr, best.explained, structure, placed, self.style)

    def _expected(self, placed: PlacedObject, longer: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a sprite minus the background, h w 3, zero outside its region, and that region, h w."""
        rgba, region = _render(placed.name, longer, self.style, placed.mirrored, max(1, round(_MARGIN * self.side)))
        return (rgba[..., :3] - rgba[..., 3:] * self.colour) * region[..., None], region

    def _crop(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """Return a crop; outside the image, its edges are repeated."""
        rows = np.clip(np.arange(row, row + height), 0, self.side - 1)
        columns = np.clip(np.arange(column, column + width), 0, self.side - 1)
        return self.difference[rows[:, None], columns]


def _explained(place: _Place) -> float:
    return place.explained


@functools.lru_cache(maxsize=256)
def _render(name: str, longer: int, style: str, mirrored: bool, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a sprite with a margin around it, premultiplied, h w 4, 0 to 1, and the pixels that count, h w."""
    size = load_sprites().drawing(name, style).scaled_size(longer)
    sprite = np.asarray(load_sprites().premultiplied(name, size, style, mirrored), np.float32) / 255
    rgba = np.pad(sprite, ((margin, margin), (margin, margin), (0, 0)))
    region = rgba[..., 3] > 0.02
    for axis in (0, 1):  # dilate by a square
        region = np.logical_or.reduce([np.roll(region, shift, axis) for shift in range(-margin, margin + 1)])
    return rgba, region
