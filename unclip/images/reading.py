"""Open images safely: a whitelist of formats, size limits, upright pixels, one line per error."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from unclip.errors import DataError
from unclip.images import png
from unclip.requests.fields import MAX_SIDE
from unclip.requests.values import size_text

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


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
                    yield stack.enter_context(Image.open(_without_metadata(file), formats=formats))
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


def _without_metadata(file: BinaryIO) -> BinaryIO:
    """The file itself, or what `png.open_pixels` leaves of a PNG."""
    start = file.read(len(png.SIGNATURE))
    if start == png.SIGNATURE:
        return png.open_pixels(file)
    file.seek(0)
    return file


def upright(image: Image.Image) -> Image.Image:
    """An image, decoded and rotated as its EXIF says. EXIF that is malformed is ignored."""
    image.load()  # an error of the pixels is not one of the EXIF
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's parser raises many kinds
        return image


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
    from_header = image.format == "PNG" and not {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & {*image.info}
    if image.format == "TIFF" or from_header:
        return image.size
    try:
        rotated = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except Exception:  # as in `upright`
        rotated = False
    return (image.height, image.width) if rotated else image.size


def check_size(size: tuple[int, int], field: str, max_side: int = MAX_SIDE) -> None:
    """Raise DataError for an image with a side above max_side pixels."""
    if max(size) > max_side:
        raise DataError(f"the {field} is {size_text(size)}, and sides may have at most {max_side} pixels: shrink it")


def describe(source: Any, field: str) -> str:
    """A source for error messages: the image 'photo.png'."""
    return f"the {field}" if isinstance(source, Image.Image) else f"the {field} {str(source)!r}"
