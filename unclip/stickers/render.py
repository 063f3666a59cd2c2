"""Rendering: composes the sprites of a scene on its flat background."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unclip.errors import DataError
from unclip.stickers.compose import choose
from unclip.stickers.scene import BACKGROUNDS, PlacedObject, Scene
from unclip.stickers.sprites import Sprites, load_sprites

CROP_STEP = 4
"""Corners of crops lie at multiples of this many pixels, so that a crop can be shrunk by 2 or 4."""


def render(scene: Scene, pixels: int, sprites: Sprites | None = None) -> np.ndarray:
    """Render a scene as a square image.

    Args:
        scene: The scene.
        pixels: Width and height.
        sprites: The sprites to take the objects from; the bundled ones by default.

    Returns:
        RGB, h w 3, uint8.

    Raises:
        DataError: the scene names an object that the sprites do not have.
    """
    sprites = load_sprites() if sprites is None else sprites
    canvas = Image.new("RGB", (pixels, pixels), BACKGROUNDS[scene.background])
    for placed in scene.objects:
        sprite = sprites.image(placed.name, _longer_side(placed, pixels), scene.style, placed.mirrored)
        canvas.paste(sprite, _corner(placed, pixels, sprite.size), sprite)
    return np.array(canvas)


def render_crop(
    scene: Scene, pixels: int, corner: tuple[int, int], side: int, sprites: Sprites | None = None
) -> np.ndarray:
    """Render a square part of a scene, without rendering the rest.

    Args:
        scene: The scene.
        pixels: Width and height of the whole image.
        corner: Left and top of the part, in pixels.
        side: Width and height of the part; the part lies wholly in the image.
        sprites: As for ``render``.

    Returns:
        RGB, h w 3, uint8: the same as that part of ``render``, but for the antialiasing of edges.

    Raises:
        DataError: the scene names an object that the sprites do not have, or the part is larger than the image.
    """
    if side > pixels:
        raise DataError(f"a crop of {side} px is larger than the image of {pixels} px")
    sprites = load_sprites() if sprites is None else sprites
    canvas = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    for placed in scene.objects:
        size = sprites.drawing(placed.name, scene.style).scaled_size(_longer_side(placed, pixels))
        left, top = _corner(placed, pixels, size)
        x, y = left - corner[0], top - corner[1]  # of the object, in the part
        box = max(-x, 0), max(-y, 0), min(side - x, size[0]), min(side - y, size[1])
        if box[0] < box[2] and box[1] < box[3]:
            sprite = sprites.part(placed.name, size, box, scene.style, placed.mirrored)
            canvas.paste(sprite, (x + box[0], y + box[1]), sprite)
    return np.array(canvas)


def random_crop(rng: np.random.Generator, scene: Scene, pixels: int, side: int) -> tuple[int, int]:
    """Return left and top, multiples of CROP_STEP, of a square of `side` px whose middle lies in one of the objects."""
    placed = choose(rng, scene.objects)
    corner = []
    for centre in (placed.x, placed.y):
        middle = (centre + (rng.random() - 0.5) * placed.size) * pixels
        corner.append(int(min(max(middle - side / 2, 0), pixels - side)) // CROP_STEP * CROP_STEP)
    return corner[0], corner[1]


def _longer_side(placed: PlacedObject, pixels: int) -> int:
    return min(pixels, max(1, round(placed.size * pixels)))


def _corner(placed: PlacedObject, pixels: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return left and top of an object of that size in pixels."""
    left = round(placed.x * pixels - size[0] / 2)
    top = round(placed.y * pixels - size[1] / 2)
    # Rounding can move it one pixel outside.
    return min(max(left, 0), pixels - size[0]), min(max(top, 0), pixels - size[1])
