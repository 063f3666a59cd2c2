"""Images for tests, and comparisons of images."""

import numpy as np
from PIL import Image

from unclip.images.result import Result

RNG = np.random.default_rng(0)


def noise_image(width: int, height: int) -> Image.Image:
    """An RGB image of random pixels; another at each call."""
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """A mask of `size`, white in `box` (left, top, right, bottom) and black elsewhere."""
    image = Image.new("L", size, 0)
    image.paste(255, box)
    return image


def pixels(image: Image.Image | Result) -> np.ndarray:
    """The pixels `h w 3` of an image as integers that can be subtracted."""
    return np.asarray(image.image if isinstance(image, Result) else image).astype(int)


def difference(a: Image.Image | Result, b: Image.Image | Result) -> int:
    """The largest difference between the pixels of two images, of 255."""
    return int(np.abs(pixels(a) - pixels(b)).max())


def kept(result: Result, image: Image.Image, mask: Image.Image) -> bool:
    """Whether the known pixels of an inpainting are unchanged and the masked ones are not."""
    masked = np.asarray(mask) > 0
    same = (pixels(result) == pixels(image)).all(-1)
    return bool(same[~masked].all() and same[masked].mean() < 0.1)
