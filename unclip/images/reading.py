"""Open images safely: a whitelist of formats, size limits, upright pixels."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unclip.errors import DataError
from unclip.requests.fields import MAX_SIDE
from unclip.requests.values import size_text

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


def open_picture(source: Any, name: str) -> Image.Image:
    """A file or a PIL image -> an upright PIL image in full. Raises DataError, which names the field and the file."""
    is_open = isinstance(source, Image.Image)
    try:
        with contextlib.nullcontext(source) if is_open else Image.open(source, formats=FORMATS) as image:
            check_size(image.size, name)
            return ImageOps.exif_transpose(image)  # which decodes it
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways
        raise unreadable(source, name, error) from None


def check_header(source: Any, name: str) -> tuple[tuple[int, int], bool]:
    """((width, height), has transparency) of a file or a PIL image, from its header: no pixels are decoded.

    Raises DataError for a file that is missing, of an unknown format, or too large.
    """
    is_open = isinstance(source, Image.Image)
    try:
        with contextlib.nullcontext(source) if is_open else Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # rotated by a quarter turn
                width, height = height, width
            check_size((width, height), name)
            return (width, height), image.has_transparency_data
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways
        raise unreadable(source, name, error) from None


def check_size(size: tuple[int, int], name: str) -> None:
    """Raise DataError for an image with a side above the limit."""
    if max(size) > MAX_SIDE:
        raise DataError(f"the {name} is {size_text(size)}, and sides may have at most {MAX_SIDE} pixels: shrink it")


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
