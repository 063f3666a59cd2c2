"""Scenes to pixels: sprites composed on a flat background."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unclip.stickers.scene import BACKGROUNDS, Scene
from unclip.stickers.sprites import Sprites, load_sprites


def render(scene: Scene, pixels: int, sprites: Sprites | None = None) -> np.ndarray:
    """Draw a scene, square, ``pixels`` to a side.

    Returns:
        uint8, h w 3, RGB.
    """
    sprites = load_sprites() if sprites is None else sprites
    canvas = Image.new("RGB", (pixels, pixels), BACKGROUNDS[scene.background])
    for placed in scene.objects:
        longer_side = min(pixels, max(1, round(placed.size * pixels)))
        picture = sprites.picture(placed.name, longer_side)
        left = round(placed.x * pixels - picture.width / 2)
        top = round(placed.y * pixels - picture.height / 2)
        left = min(max(left, 0), pixels - picture.width)  # rounding may put it a pixel outside
        top = min(max(top, 0), pixels - picture.height)
        canvas.paste(picture, (left, top), picture)
    return np.array(canvas)
