"""Compares an object of an image with its true rendering, placed, resized and mirrored so that it fits best.

The checker (``checker.py``) names the sprite that a piece of an image resembles most, at 64 px. That is lenient: a
blurred patch in the right colours passes. Here the object is compared with the drawing itself, at full resolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unclip.stickers.scene import PlacedObject
from unclip.stickers.sprites import DEFAULT_STYLE, VECTOR_STYLES, load_sprites

# Provisional: no person has judged a sheet of images yet with which the thresholds could agree.
MIN_PSNR = 16.0
"""Least PSNR in dB of a recognisable object, within its outline."""
MIN_EXPLAINED = 0.6
"""Least explained fraction of a recognisable object."""

_MARGIN = 1 / 64  # of the image, around the outline: halos and stray edges count
_COARSE = 64  # px; size of the image in which the place is searched first
_SIZES = (0.8, 0.87, 0.93, 1.0, 1.07, 1.15, 1.24)  # tried first, times the expected size
_FINE_SIZES = (0.96, 0.98, 1.0, 1.02, 1.04)


@dataclass(frozen=True)
class Fit:
    """A sprite placed over an image where it fits best.

    Attributes:
        psnr: In dB, within the outline and a margin, to the rendering on the background.
        explained: 1 minus the ratio of the squared error to the bare background's: 1 is perfect, 0 is the background.
        placed: The sprite.
        style: One of sprites.STYLES.
    """

    psnr: float
    explained: float
    placed: PlacedObject
    style: str

    @property
    def is_recognisable(self) -> bool:
        """Whether a person would name the object; the thresholds are provisional."""
        return self.psnr >= MIN_PSNR and self.explained >= MIN_EXPLAINED


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
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    full = np.asarray(image.convert("RGB"), np.float32) / 255
    small = np.asarray(image.convert("RGB").resize((_COARSE, _COARSE), Image.Resampling.BOX), np.float32) / 255
    colour = np.asarray(background, np.float32) / 255
    coarse, fine = _Search(small, colour, style), _Search(full, colour, style)
    sides = (False, True) if style in VECTOR_STYLES and load_sprites().nouns[expected.name].mirror else (False,)
    best = max(
        (coarse.slide(_changed(expected, mirrored=side), _SIZES, radius=6, step=2) for side in sides), key=_explained
    )
    best = coarse.slide(best.placed, _FINE_SIZES, radius=2, step=1)
    if image.width > _COARSE:
        best = fine.slide(best.placed, _FINE_SIZES, radius=image.width // _COARSE, step=2)
    for radius in (2, 1):
        pixel = 1 / (best.placed.size * image.width)
        best = fine.slide(best.placed, tuple(1 + k * pixel for k in (-2, -1, 0, 1, 2)), radius, step=1)
    return best


@dataclass(frozen=True, eq=False)
class _Search:
    """A search for the best place of sprites in an image, h w 3, 0 to 1, on a background of one colour."""

    image: np.ndarray
    colour: np.ndarray
    style: str

    def slide(self, around: PlacedObject, sizes: Sequence[float], radius: int, step: int) -> Fit:
        """Return the best fit of the sizes, relative to `around`, and of the places within `radius` px of it."""
        return max((self._slide(around, around.size * size, radius, step) for size in sizes), key=_explained)

    def _slide(self, around: PlacedObject, size: float, radius: int, step: int) -> Fit:
        side = self.image.shape[0]
        longer = max(2, min(side, round(size * side)))
        rgba, region = _render(around.name, longer, self.style, around.mirrored, max(1, round(_MARGIN * side)))
        rendering = rgba[..., :3] + (1 - rgba[..., 3:]) * self.colour  # h w 3
        height, width = region.shape
        padded = np.pad(self.image, ((height, height), (width, width), (0, 0)), mode="edge")
        left, top = round(around.x * side - width / 2), round(around.y * side - height / 2)
        least, corner = np.inf, (left, top)
        expected = rendering[region]
        for dy in range(-radius, radius + 1, step):
            for dx in range(-radius, radius + 1, step):
                row = min(max(top + dy + height, 0), side + height)
                column = min(max(left + dx + width, 0), side + width)
                piece = padded[row : row + height, column : column + width]
                error = float(((piece[region] - expected) ** 2).sum())
                if error < least:
                    least, corner = error, (column - width, row - height)
        signal = float(((expected - self.colour) ** 2).sum())
        x, y = (corner[0] + width / 2) / side, (corner[1] + height / 2) / side
        placed = PlacedObject(around.name, x, y, longer / side, around.mirrored)
        mean = least / max(1, expected.size)
        return Fit(float(-10 * np.log10(max(mean, 1e-10))), 1 - least / max(signal, 1e-6), placed, self.style)


def _changed(placed: PlacedObject, mirrored: bool) -> PlacedObject:
    return PlacedObject(placed.name, placed.x, placed.y, placed.size, mirrored)


def _explained(fit: Fit) -> float:
    return fit.explained


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
