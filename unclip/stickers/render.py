"""Rendering: composes the sprites of a scene on its flat background."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unclip.stickers.scene import BACKGROUNDS, Scene
from unclip.stickers.sprites import Sprites, load_sprites


def render(scene: Scene, pixels: int, sprites: Sprites | None = None) -> np.ndarray:
    """Render a scene as a square image.

    Args:
        scene: The scene.
        pixels: Width and height.
        sprites: The atlas to take the objects from; the bundled one by default.

    Returns:
        RGB, h w 3, uint8.

    Raises:
        DataError: the scene names an object that the atlas does not have.
    """
    sprites = load_sprites() if sprites is None else sprites
    canvas = Image.new("RGB", (pixels, pixels), BACKGROUNDS[scene.background])
    for placed in scene.objects:
        longer_side = min(pixels, max(1, round(placed.size * pixels)))
        sprite = sprites.image(placed.name, longer_side)
        left = round(placed.x * pixels - sprite.width / 2)
        top = round(placed.y * pixels - sprite.height / 2)
        left = min(max(left, 0), pixels - sprite.width)  # rounding can move it one pixel outside
        top = min(max(top, 0), pixels - sprite.height)
        canvas.paste(sprite, (left, top), sprite)
    return np.array(canvas)
