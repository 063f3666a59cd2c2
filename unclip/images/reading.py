"""Open images safely: a whitelist of formats, size limits, upright pixels, one line per error."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from unclip.errors import DataError
from unclip.images import png
from unclip.requests.fields import MAX_SIDE
from unclip.requests.values import size_text

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TRANSPOSE = {  # by EXIF orientation. Pillow's `exif_transpose` fails if it cannot write the rest of the EXIF again
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextlib.contextmanager
def opened(source: Any, name: str, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """An image file, a binary stream or a PIL image, with its header read and its pixels not decoded yet.

    Of a PNG, the pixels, the profile and the orientation are read, so that no other metadata can hinder that. Every
    error inside this context, as decoders raise many kinds, becomes a DataError of one line that starts with `name`.
    Files above Pillow's pixel limit are refused.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual metadata
            # Between its limit and twice that, Pillow only warns.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                yield source
            else:
                with contextlib.ExitStack() as stack:
                    file = source if hasattr(source, "read") else stack.enter_context(open(source, "rb"))
                    yield stack.enter_context(_open(file, name, formats))
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


def _open(file: BinaryIO, name: str, formats: tuple[str, ...]) -> Image.Image:
    """The image in a binary file, of a PNG without its other metadata. name: for messages."""
    start = file.read(len(png.SIGNATURE))
    file.seek(0)
    try:
        return Image.open(png.open_pixels(file) if start == png.SIGNATURE else file, formats=formats)
    except UnidentifiedImageError:
        if start[:4] in _TIFF and "TIFF" in formats:  # Pillow reads no floats of three channels, for instance
            raise DataError(f"{name} is a TIFF of a kind that is not read: save it with 8 bits per channel") from None
        raise


def upright(image: Image.Image) -> Image.Image:
    """An image, decoded and rotated as its EXIF says; the image itself if it is upright."""
    image.load()
    how = _TRANSPOSE.get(_orientation(image))
    return image if how is None else image.transpose(how)


def _orientation(image: Image.Image) -> int:
    """The orientation in the EXIF of an image, 1 (upright) .. 8; 1 if it is malformed."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's parser raises many kinds
        return 1
    return found if isinstance(found, int) else 1


def open_image(source: Any, field: str) -> Image.Image:
    """An upright, decoded PIL image from a file or a PIL image. Raises DataError with the field and the file."""
    with opened(source, describe(source, field)) as image:
        check_size(image.size, field)
        return upright(image)


def check_header(source: Any, field: str, max_side: int | None = MAX_SIDE) -> tuple[tuple[int, int], bool]:
    """((width, height) when upright, has transparency) of a file or a PIL image. Decodes no pixels of a file.

    max_side: in pixels; None for Pillow's limit only. Raises DataError for a file that is missing, of an unknown
    format, or too large.
    """
    with opened(source, describe(source, field)) as image:
        size = upright_size(image)
        if max_side is not None:
            check_size(size, field, max_side)
        return size, image.has_transparency_data


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened image after `upright`."""
    # Pillow swaps the sides of a TIFF itself, and would decode a PNG to look for EXIF behind its pixels.
    in_front = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & image.info.keys()
    if image.format == "TIFF" or image.format == "PNG" and not in_front or _orientation(image) not in (5, 6, 7, 8):
        return image.size
    return image.height, image.width


def check_size(size: tuple[int, int], field: str, max_side: int = MAX_SIDE) -> None:
    """Raise DataError for an image with a side above max_side pixels."""
    if max(size) > max_side:
        raise DataError(f"the {field} is {size_text(size)}, and sides may have at most {max_side} pixels: shrink it")


def describe(source: Any, field: str) -> str:
    """A source for error messages: the image 'photo.png'."""
    return f"the {field}" if isinstance(source, Image.Image) else f"the {field} {str(source)!r}"
