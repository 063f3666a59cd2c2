"""Compare an image with the one in a file, to tell whether it was reproduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unclip.errors import DataError
from unclip.images import metadata

if TYPE_CHECKING:
    from PIL import Image

TOLERANCE = 1
"""Largest difference, of 255, that another batch size or machine may cause in float32."""
BFLOAT16_TOLERANCE = 16
"""The same in bfloat16, where kernels for other batch sizes round differently. Measured."""


@dataclass(frozen=True)
class Comparison:
    """identical: in every byte. difference: the largest one, of 255, or None if the file is lossy and they differ.

    tolerance: the largest difference that counts as agreement, in the precision of both images.
    """

    identical: bool
    difference: int | None
    tolerance: int = TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.identical or (self.difference is not None and self.difference <= self.tolerance)


def compare(path: str | None, record: dict[str, Any], image: Image.Image, dtype: str | None = None) -> Comparison:
    """Compare the image in the file at `path`, which has `record`, with `image`, which was generated in `dtype`.

    A lossy file, and one that is gone (None), are compared by the hash in the record only. Raises DataError for a file
    that cannot be decoded.
    """
    from PIL import ImageChops

    from unclip.images.reading import opened

    identical = metadata.pixel_hash(image) == record.get("pixels")
    if path is None:
        return Comparison(identical, 0 if identical else None)
    with opened(path, repr(path), tuple(set(metadata.FORMATS.values()))) as file:
        lossy = file.format != "PNG"
        if not lossy and file.size != image.size:
            size, expected = "x".join(map(str, file.size)), "x".join(map(str, image.size))
            raise DataError(f"{path!r} is {size} pixels, its record says {expected}; the file was changed")
        old = None if lossy else file.convert("RGBA" if file.has_transparency_data else image.mode)
    if old is None:
        return Comparison(identical, 0 if identical else None)
    bands = ImageChops.difference(old, image.convert(old.mode)).split()
    difference = max(int(band.getextrema()[1]) for band in bands)  # pyright: ignore[reportArgumentType]
    # Someone may have edited the pixels and kept the record, so the hash of the pixels themselves decides.
    untouched = metadata.pixel_hash(old) == record.get("pixels")
    both_bfloat16 = untouched and dtype == record.get("dtype") == "bfloat16"
    return Comparison(difference == 0, difference, BFLOAT16_TOLERANCE if both_bfloat16 else TOLERANCE)
