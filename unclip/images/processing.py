"""Convert between PIL images and tensors, and make images square."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unclip.images.reading import open_image, split_alpha
from unclip.requests.values import size_text


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
    """An opaque square image from a file or a PIL image, and notes on how it was made.

    fit: "crop" takes the middle; "pad" adds the usual colour of the border to the shorter sides. Raises DataError for
    an image that cannot be read.
    """
    pixels, alpha = split_alpha(open_image(source, "image"))
    image, notes = Image.fromarray(pixels), []
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), Image.fromarray(alpha))
        notes.append("the transparent parts of the image were made white")
    size, side = image.size, (min if fit == "crop" else max)(image.size)
    if fit == "crop" and size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.NEAREST)  # crops without resizing
        middle = size_text((side, side))
        notes.append(f"the image, {size_text(size)}, was cropped to its middle {middle}; see fit pad")
    elif size != (side, side):
        border = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
        colour = tuple(np.median(border, axis=0).astype(int).tolist())
        image = ImageOps.pad(image, (side, side), Image.Resampling.NEAREST, colour)
        notes.append(f"the image, {size_text(size)}, was padded to {size_text((side, side))}")
    return image, tuple(notes)
