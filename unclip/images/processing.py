"""Convert between PIL images and tensors, and make images square."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unclip.images.pixels import to_eight_bits, to_srgb_on_white
from unclip.images.reading import describe, opened, upright, upright_size
from unclip.requests.values import size_text

LARGE = 4096
"""Pixels of a side from which on an image is reduced before it is made square."""


def to_images(images: Tensor) -> list[Image.Image]:
    """PIL images from `b 3 h w` in [-1, 1]."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # b h w 3
    return [Image.fromarray(image) for image in pixels]


def to_tensor(image: Image.Image) -> Tensor:
    """`3 h w` in [-1, 1] from a PIL image."""
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def to_square(image: Image.Image, side: int, crop: bool) -> Image.Image:
    """An image resized to side x side pixels: its middle, or the whole image squeezed."""
    width, height = image.size
    if not crop:
        return image.resize((side, side), Image.Resampling.BICUBIC)
    short = min(width, height)
    new_width, new_height = (side * length // short for length in (width, height))
    left, top = (new_width - side) // 2, (new_height - side) // 2
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


def open_square(source: Any, fit: str) -> tuple[Image.Image, tuple[str, ...]]:
    """An opaque square sRGB image from a file or a PIL image, and notes on how it was made.

    fit: "crop" takes the middle; "pad" adds the usual colour of the border to the shorter sides. A side of LARGE or
    more pixels is reduced by a whole factor, not below LARGE / 2: models read less, and memory is bounded. Raises
    DataError for an image that cannot be read.
    """
    name = describe(source, "image")
    with opened(source, name) as image:
        size = upright_size(image)
        side = (min if fit == "crop" else max)(size)
        factor = max(1, side // (LARGE // 2))
        if not isinstance(source, Image.Image):  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
            image.draft(None, (max(1, image.width // factor), max(1, image.height // factor)))
        embedded = image.info.get("icc_profile")
        image = to_eight_bits(upright(image), name)
        middle = _middle(image.size) if fit == "crop" else (0, 0, *image.size)
        factor = max(1, (min if fit == "crop" else max)(image.size) // (LARGE // 2))  # what the draft left to do
        if factor > 1:
            image = image.reduce(factor, box=middle)
        elif image.size != middle[2:]:
            image = image.crop(middle)
    if embedded is not None:
        image.info["icc_profile"] = embedded
    image, notes = to_srgb_on_white(image)
    if size == (side, side):
        return image, notes
    if fit == "crop":
        note = f"the image, {size_text(size)}, was cropped to its middle {size_text((side, side))}; see fit pad"
    else:
        note = f"the image, {size_text(size)}, was padded to {size_text((side, side))}"
        image = _pad(image)
    return image, (*notes, note)


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the square in the middle of (width, height)."""
    side = min(size)
    left, top = ((length - side) // 2 for length in size)
    return left, top, left + side, top + side


def _pad(image: Image.Image) -> Image.Image:
    """An RGB image in the middle of a square that has the median colour of its border."""
    pixels, side = np.asarray(image), max(image.size)
    border = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
    colour = tuple(np.median(border, axis=0).astype(int).tolist())
    return ImageOps.pad(image, (side, side), Image.Resampling.NEAREST, colour)
