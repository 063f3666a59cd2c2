"""Open images safely: a whitelist of formats, size limits, upright pixels, one line per error."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unclip.errors import DataError
from unclip.requests.fields import MAX_SIDE
from unclip.requests.values import size_text

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


@contextlib.contextmanager
def opened(source: Any, name: str, formats: Sequence[str] = FORMATS) -> Iterator[Image.Image]:
    """An image file, a binary stream or a PIL image, with its header read and its pixels not decoded yet.

    Every error inside this context, as decoders raise many kinds, becomes a DataError of one line that starts with
    `name`. Files above Pillow's pixel limit are refused.
    """
    try:
        with warnings.catch_warnings():
            # Between its limit and twice that, Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                yield source
            else:
                with Image.open(source, formats=formats) as image:
                    yield image
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a readable image; give one of {', '.join(formats)}") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
        raise DataError(f"{name} is larger than Pillow's limit of {limit}: scale it down") from None
    except FileNotFoundError:
        raise DataError(f"cannot read {name} (No such file or directory)") from None
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {name} ({reason})") from None


def open_image(source: Any, field: str) -> Image.Image:
    """An upright, decoded PIL image from a file or a PIL image. Raises DataError with the field and the file."""
    with opened(source, describe(source, field)) as image:
        check_size(image.size, field)
        return ImageOps.exif_transpose(image)


def check_header(source: Any, field: str) -> tuple[tuple[int, int], bool]:
    """((width, height) when upright, has transparency) of a file or a PIL image. Decodes no pixels.

    Raises DataError for a file that is missing, of an unknown format, or too large.
    """
    with opened(source, describe(source, field)) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # rotated by a quarter turn
            width, height = height, width
        check_size((width, height), field)
        return (width, height), image.has_transparency_data


def check_size(size: tuple[int, int], field: str) -> None:
    """Raise DataError for an image with a side above MAX_SIDE pixels."""
    if max(size) > MAX_SIDE:
        raise DataError(f"the {field} is {size_text(size)}, and sides may have at most {MAX_SIDE} pixels: shrink it")


def describe(source: Any, field: str) -> str:
    """A source for error messages: the image 'photo.png'."""
    return f"the {field}" if isinstance(source, Image.Image) else f"the {field} {str(source)!r}"


def split_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """The colours `h w 3` uint8 of a PIL image of any mode, and its alpha `h w` uint8, or None if it is opaque."""
    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more, which PIL's conversion would clip
        values = np.asarray(image).astype(np.float64)
        grey = (values / (257 if image.mode.startswith("I") else 1)).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2), None
    if not image.has_transparency_data:
        return np.array(image.convert("RGB")), None
    pixels = np.array(image.convert("RGBA"))
    alpha = pixels[..., 3].copy()
    return pixels[..., :3].copy(), None if (alpha == 255).all() else alpha
