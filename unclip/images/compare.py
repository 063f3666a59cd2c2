"""Whether a picture made again is the one in a file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unclip.errors import DataError
from unclip.images import metadata

if TYPE_CHECKING:
    from PIL import Image

TOLERANCE = 1  # of 255: what another batch size or machine may change
ROUGH = 16
"""The same in bfloat16, where a batch of another size takes other kernels, which round otherwise: so much was seen."""


@dataclass(frozen=True)
class Comparison:
    """identical: every byte. difference: the largest, of 255; None where the file cannot tell. agrees: near enough.

    tolerance: the difference up to which two pictures are near enough, in the precision that both were drawn in.
    """

    identical: bool
    difference: int | None
    tolerance: int = TOLERANCE

    @property
    def agrees(self) -> bool:
        return self.identical or (self.difference is not None and self.difference <= self.tolerance)


def compare(path: str, record: dict[str, Any], image: Image.Image, dtype: str | None = None) -> Comparison:
    """The picture in the file at `path`, which holds `record`, against `image`, which was drawn in a precision.

    A lossy file is compared by the hash in its record only. Raises DataError for a file that cannot be decoded.
    """
    from PIL import Image, ImageChops

    identical = metadata.pixel_hash(image) == record.get("pixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=tuple(set(metadata.FORMATS.values()))) as file:
                lossy = file.format != "PNG"
                if not lossy and file.size != image.size:
                    size, expected = "x".join(map(str, file.size)), "x".join(map(str, image.size))
                    raise DataError(f"{path!r} is {size} pixels, its record says {expected}; it was changed since")
                old = None if lossy else file.convert("RGB")
    except DataError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        raise DataError(f"{path!r} is damaged: it cannot be decoded") from error
    if old is None:
        return Comparison(identical, 0 if identical else None)
    extrema = ImageChops.difference(old, image.convert("RGB")).getextrema()
    difference = max(high for _, high in extrema)
    # The pixels in the file are what counts: somebody may have painted over them and kept the record.
    untouched = metadata.pixel_hash(old) == record.get("pixels")
    rough = untouched and dtype == record.get("dtype") == "bfloat16"
    return Comparison(difference == 0, difference, ROUGH if rough else TOLERANCE)
