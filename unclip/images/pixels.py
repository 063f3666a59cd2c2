"""The pixels of images of any mode: 8-bit colours, alpha, and the colour profile that they are in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from unclip.errors import DataError
from unclip.images import colour
from unclip.images.colour import ColourProfile
from unclip.images.reading import check_size, describe, opened, upright


@dataclass(frozen=True)
class Pixels:
    """An image as arrays.

    colours: `h w 3` uint8, in `profile`, or in sRGB if that is None. alpha: `h w` uint8, or None for an opaque image.
    notes: messages for the user.
    """

    colours: np.ndarray
    alpha: np.ndarray | None
    profile: ColourProfile | None = None
    notes: tuple[str, ...] = ()


def read_pixels(source: Any, field: str) -> Pixels:
    """The upright pixels of a file or a PIL image, with the values that it stores, as 8-bit RGB.

    Raises DataError for an image that cannot be read, with the field and the file.
    """
    with opened(source, describe(source, field)) as image:
        check_size(image.size, field)
        embedded = image.info.get("icc_profile")
        image, alpha = split_alpha(to_eight_bits(upright(image), describe(source, field)))
    rgb, profile, notes = colour.to_rgb(image, embedded)
    if embedded is not None and profile is None and not notes:
        notes = ("the image was converted to sRGB, because its colour profile cannot be kept in an RGB file",)
    return Pixels(np.array(rgb), None if alpha is None else np.array(alpha), profile, notes)


def to_srgb_on_white(image: Image.Image, name: str = "the image") -> tuple[Image.Image, tuple[str, ...]]:
    """A PIL image of any mode as an opaque sRGB image, its transparent parts white, and notes for the user.

    Raises DataError for float or 32-bit values in an unknown range; it starts with `name`.
    """
    embedded = image.info.get("icc_profile")
    if image.mode == "RGB" and embedded is None and not image.has_transparency_data:
        return image, ()
    image, alpha = split_alpha(to_eight_bits(image, name))
    rgb, notes = colour.to_srgb(image, embedded)
    if alpha is not None:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
        notes = ("the transparent parts of the image were made white", *notes)
    return rgb, notes


def to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """An image of any mode as one of L, LA, RGB, RGBA or CMYK.

    Whole numbers of 16 or 32 bits count from 0 to 65,535. Floats count from 0 to 1; if the largest is 16 or more, from
    0 to 255. Raises DataError for other values, and for those that are not finite; it starts with `name`.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale(np.asarray(image), name))
    grey = image.mode in ("1", "L", "LA", "La")
    mode = image.mode
    if image.has_transparency_data:
        mode = "LA" if grey else "RGBA"
    elif mode != "CMYK":
        mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)  # `convert` copies, and an image may be large


def _scale(values: np.ndarray, name: str) -> np.ndarray:
    """Grey values `h w` of more than 8 bits as uint8."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind != "f":
        if low < 0 or high > 65535:
            raise DataError(f"{name} has values from {low:.0f} to {high:.0f}: save it with 8 bits, or with 0 to 65,535")
        return (values / np.float32(257)).round().clip(0, 255).astype(np.uint8)
    if not np.isfinite(values).all():
        raise DataError(f"{name} has values that are not finite (NaN or infinity): replace them")
    scale = 255 if high < 16 else 1
    if low * scale < -1 or high * scale > 256:  # a rounding error outside the range is clipped
        raise DataError(f"{name} has float values from {low:g} to {high:g}: scale them to 0 .. 1, or to 0 .. 255")
    return (values * np.float32(scale)).round().clip(0, 255).astype(np.uint8)


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours and the alpha of an image of `to_eight_bits`. The alpha is None if the image is opaque."""
    if image.mode not in ("LA", "RGBA"):
        return image, None
    *_, alpha = image.split()
    return image.convert(image.mode[:-1]), None if alpha.getextrema() == (255, 255) else alpha
