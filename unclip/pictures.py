"""Pictures: files and PIL images <-> tensors and arrays, upright, in the colours and the size that are asked for."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unclip.errors import DataError
from unclip.request import MAX_SIDE, size_text

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def open_picture(source: Any, name: str) -> Image.Image:
    """A file or a PIL image -> an upright PIL image in full. Raises DataError, which names the field and the file."""
    is_open = isinstance(source, Image.Image)
    try:
        with contextlib.nullcontext(source) if is_open else Image.open(source, formats=FORMATS) as image:
            if max(image.size) > MAX_SIDE:
                found = size_text(image.size)
                raise DataError(f"the {name} is {found}; sides of at most {MAX_SIDE} pixels are edited: shrink it")
            return ImageOps.exif_transpose(image)  # which decodes it
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways
        raise unreadable(source, name, error) from None


def unreadable(source: str | Path, name: str, error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{name} {str(source)!r} is no picture that can be read; give one of {', '.join(FORMATS)}")
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(f"cannot read the {name} {str(source)!r} ({reason})")


def split_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """A PIL image of any mode -> its colours `h w 3` and, unless it is opaque, its alpha `h w`; both uint8."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bit and wider: PIL's own conversion would clip
        values = np.asarray(image).astype(np.float64)
        grey = (values / (257 if image.mode.startswith("I") else 1)).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), None
    pixels = np.array(image.convert("RGBA"))
    alpha = pixels[..., 3].copy()
    return pixels[..., :3].copy(), None if (alpha == 255).all() else alpha


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
