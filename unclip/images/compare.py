"""Compare an image with the one in a file, to tell whether it was reproduced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unclip.errors import DataError
from unclip.images import metadata

if TYPE_CHECKING:
    from PIL import Image

TOLERANCE = 1
"""Largest difference of a pixel, of 255, that another batch size or machine may cause in float32."""
BFLOAT16_TOLERANCE = 16
"""The same in bfloat16, where kernels for other batch sizes round differently. Measured."""
BFLOAT16_RMS = 1.0
"""Root mean square of the differences, of 255, up to which bfloat16 pixels at sharp edges may differ by more.

Measured with the bundled model for other batch sizes: 0.4 to 0.7, with pixels that differ by up to 28. One more step
makes 0.8 to 1.2, and another seed 10 or more.
"""


@dataclass(frozen=True)
class Comparison:
    """identical: in every byte. difference: the largest one, of 255, or None if the file is lossy and they differ.

    rms: the root mean square of the differences, of 255, or None in that case.
    bfloat16: whether both images were generated in bfloat16.
    """

    identical: bool
    difference: int | None
    rms: float | None
    bfloat16: bool = False

    @property
    def tolerance(self) -> int:
        """The largest difference of a pixel that counts as agreement in the precision of both images."""
        return BFLOAT16_TOLERANCE if self.bfloat16 else TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether the differences are within the tolerance; in bfloat16, a few at sharp edges may be larger."""
        if self.difference is None or self.rms is None:
            return False
        return self.difference <= self.tolerance or (self.bfloat16 and self.rms <= BFLOAT16_RMS)


def compare(path: str | None, record: dict[str, Any], image: Image.Image, dtype: str | None = None) -> Comparison:
    """Compare the image in the file at `path`, which has `record`, with `image`, which was generated in `dtype`.

    A lossy file, and one that is gone (None), are compared by the hash in the record only. Raises DataError for a file
    that cannot be decoded.
    """
    from PIL import ImageChops, ImageStat

    from unclip.images.reading import opened

    identical = metadata.pixel_hash(image) == record.get("pixels")
    if path is None:
        return _unmeasured(identical)
    with opened(path, repr(path), tuple(set(metadata.FORMATS.values()))) as file:
        lossy = file.format != "PNG"
        if not lossy and file.size != image.size:
            size, expected = "x".join(map(str, file.size)), "x".join(map(str, image.size))
            raise DataError(f"{path!r} is {size} pixels, its record says {expected}; the file was changed")
        old = None if lossy else file.convert("RGBA" if file.has_transparency_data else image.mode)
    if old is None:
        return _unmeasured(identical)
    bands = ImageChops.difference(old, image.convert(old.mode)).split()
    difference = max(int(band.getextrema()[1]) for band in bands)  # pyright: ignore[reportArgumentType]
    rms = math.sqrt(sum(ImageStat.Stat(band).rms[0] ** 2 for band in bands) / len(bands))
    # Someone may have edited the pixels and kept the record, so the hash of the pixels themselves decides.
    untouched = metadata.pixel_hash(old) == record.get("pixels")
    return Comparison(difference == 0, difference, rms, untouched and dtype == record.get("dtype") == "bfloat16")


def _unmeasured(identical: bool) -> Comparison:
    return Comparison(identical, 0, 0.0) if identical else Comparison(False, None, None)
