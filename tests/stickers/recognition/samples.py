"""Scenes and images that several tests of the recognition use."""

import numpy as np
from PIL import Image, ImageFilter

from unclip.stickers.scene import PlacedObject, Scene


def pair_of(relation: str, first: tuple[float, float], second: tuple[float, float], background: str = "white") -> Scene:
    """Return a scene of a penguin and a pizza, centred at the given points."""
    placed = PlacedObject("penguin", *first, 0.4), PlacedObject("pizza", *second, 0.4)
    return Scene(placed, background, "pair", relation=relation)


def degraded(image: np.ndarray) -> np.ndarray:
    """Return an image with the faults of a small model: out of focus, grainy, its colours slightly wrong."""
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.8)), np.float64)
    grain = np.random.default_rng(0).normal(0, 0.02 * 255, blurred.shape)
    return np.clip(blurred + grain + (5, -4, 6), 0, 255).astype(np.uint8)
