"""Pictures: files and PIL images <-> tensors and arrays, upright, in the colours and the size that are asked for."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from unclip.images.reading import open_picture, split_alpha
from unclip.requests.values import size_text


def to_images(pictures: Tensor) -> list[Image.Image]:
    """`b 3 h w` in [-1, 1] -> PIL images."""
    pixels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()  # b h w 3
    return [Image.fromarray(image) for image in pixels]


def to_tensor(image: Image.Image) -> Tensor:
    """PIL image -> `3 h w` in [-1, 1]."""
    pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1).float() / 127.5 - 1


def to_square(image: Image.Image, side: int, crop: bool) -> Image.Image:
    """An image as a square: squeezed, or the middle of it."""
    width, height = image.size
    if not crop:
        return image.resize((side, side), Image.Resampling.BICUBIC)
    short = min(width, height)
    wide, high = (side * length // short for length in (width, height))
    left, top = (wide - side) // 2, (high - side) // 2
    return image.resize((wide, high), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def squared(source: Any, fit: str) -> tuple[Image.Image, tuple[str, ...]]:
    """A file or a PIL image as an opaque square, and notes on what that took.

    fit: "crop" takes its middle, "pad" adds to the shorter sides the colour that is usual at its border. Raises
    DataError for a picture that cannot be read.
    """
    pixels, alpha = split_alpha(open_picture(source, "image"))
    image, notes = Image.fromarray(pixels), []
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), Image.fromarray(alpha))
        notes.append("what is transparent in the image was made white")
    size, side = image.size, (min if fit == "crop" else max)(image.size)
    if fit == "crop" and size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.NEAREST)  # of this size, nothing is resized
        notes.append(f"of the image, {size_text(size)}, the middle {size_text((side, side))} was taken; see fit pad")
    elif size != (side, side):
        ring = np.concatenate([pixels[[0, -1]].reshape(-1, 3), pixels[:, [0, -1]].reshape(-1, 3)])
        colour = tuple(np.median(ring, axis=0).astype(int).tolist())
        image = ImageOps.pad(image, (side, side), Image.Resampling.NEAREST, colour)
        notes.append(f"the image, {size_text(size)}, was padded to {size_text((side, side))}")
    return image, tuple(notes)
