"""Colour profiles (ICC.1). What a model sees is sRGB; an edit preserves the profile of its image."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image, ImageCms

MAX_CARRIED = 1 << 20
"""Bytes of a profile that is written into files; Pillow refuses a PNG with a longer one."""
MAX_READ = 1 << 24  # bytes; the longest profiles, of printers, have some 3 million

_SPACES = (("RGB", "RGB"), ("RGB", "L"), ("GRAY", "L"), ("CMYK", "CMYK"))
"""The colours of a profile and the modes of images that it can describe."""
_SRGB_PRIMARIES = {  # XYZ, adapted to D50 (IEC 61966-2-1, ICC.1 annex E)
    b"rXYZ": (0.43607, 0.22249, 0.01392),
    b"gXYZ": (0.38515, 0.71687, 0.09708),
    b"bXYZ": (0.14307, 0.06061, 0.71410),
}


@dataclass(frozen=True)
class ColourProfile:
    """An RGB colour profile: its bytes, as in an image file."""

    data: bytes = field(repr=False)

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """An RGB image in this profile's colours -> the same colours in sRGB."""
        return self._to_srgb(image)

    def from_srgb(self, image: Image.Image) -> Image.Image:
        """An RGB image in sRGB -> the same colours in this profile."""
        return self._from_srgb(image)

    @cached_property
    def _to_srgb(self) -> Callable[[Image.Image], Image.Image]:
        return _transform(_parse(self.data), ImageCms.createProfile("sRGB"), "RGB")

    @cached_property
    def _from_srgb(self) -> Callable[[Image.Image], Image.Image]:
        return _transform(ImageCms.createProfile("sRGB"), _parse(self.data), "RGB")

    @property
    def converts_both_ways(self) -> bool:
        """Whether colours can be converted to sRGB and back. The profiles of scanners convert one way only."""
        try:
            return self._to_srgb is not None and self._from_srgb is not None
        except ImageCms.PyCMSError:
            return False


def to_rgb(image: Image.Image, embedded: bytes | None) -> tuple[Image.Image, ColourProfile | None, tuple[str, ...]]:
    """The colours of an image as RGB, the profile that they are in (None: sRGB), and a note on one that is ignored.

    image: L, RGB or CMYK. embedded: the profile in its file. The values of an RGB or grey image do not change, unless
    an RGB file cannot hold its profile: then the image is converted to sRGB. A profile that is damaged, or for other
    colours than the image's, is ignored.
    """
    if embedded is None:
        return image.convert("RGB"), None, ()
    try:
        if len(embedded) > MAX_READ:
            return _ignore_profile(image, f"has {len(embedded):,} bytes")
        parsed = _parse(embedded)
        space = embedded[16:20].decode("latin-1").strip()  # ICC.1, 7.2.6
        if (space, image.mode) not in _SPACES:
            return _ignore_profile(image, f"is for {space} colours, but the image is {image.mode}")
        if space == "RGB":
            image = image.convert("RGB")
        data = embedded if space == "RGB" else _grey_as_rgb(embedded) if space == "GRAY" else None
        profile = None if data is None else ColourProfile(data)
        if profile is not None and len(profile.data) <= MAX_CARRIED and profile.converts_both_ways:
            return image.convert("RGB"), profile, ()
        return _transform(parsed, ImageCms.createProfile("sRGB"), image.mode)(image), None, ()
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, struct.error):
        return _ignore_profile(image, "is damaged")


def to_srgb(image: Image.Image, embedded: bytes | None) -> tuple[Image.Image, tuple[str, ...]]:
    """An image in sRGB, and a note on a profile that is ignored. Arguments as in `to_rgb`."""
    rgb, profile, notes = to_rgb(image, embedded)
    rgb.info.pop("icc_profile", None)
    return (rgb if profile is None else profile.to_srgb(rgb)), notes


def _ignore_profile(image: Image.Image, why: str) -> tuple[Image.Image, None, tuple[str, ...]]:
    return image.convert("RGB"), None, (f"the colour profile of the image {why}, and is ignored",)


def _parse(data: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(data))


def _transform(source, target, mode: str) -> Callable[[Image.Image], Image.Image]:
    """A function that converts an image of `mode` between two profiles, to RGB. Raises PyCMSError."""
    transform = ImageCms.buildTransform(
        source,
        target,
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,
    )

    def convert(image: Image.Image) -> Image.Image:
        converted = transform.apply(image)
        converted.info.pop("icc_profile", None)
        return converted

    return convert


def _grey_as_rgb(data: bytes) -> bytes | None:
    """An RGB profile in which equal values look as in a grey one, so that grey pixels need not change.

    Its three curves are the grey one's. None for a grey profile without a curve to XYZ (ICC.1, 8.3.4).
    """
    if data[20:24] != b"XYZ ":
        return None
    tags = _tags(data)
    if b"kTRC" not in tags:
        return None
    own = {name: tags[name] for name in (b"desc", b"cprt", b"wtpt", b"chad") if name in tags}
    for name, xyz in _SRGB_PRIMARIES.items():
        own[name] = b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in xyz))
    own |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), tags[b"kTRC"])
    table, body = struct.pack(">I", len(own)), b""
    for name, tag in own.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(own) + len(body), len(tag))
        body += tag + b"\0" * (-len(tag) % 4)
    header = bytearray(data[:128])
    header[0:4] = struct.pack(">I", 128 + len(table) + len(body))
    header[12:20] = b"mntrRGB "
    header[84:100] = bytes(16)  # the checksum of the other profile
    return bytes(header) + table + body


def _tags(data: bytes) -> dict[bytes, bytes]:
    """The tags of a profile. Raises ValueError for a table that does not fit into it."""
    [count] = struct.unpack_from(">I", data, 128)
    if 132 + 12 * count > len(data):
        raise ValueError("the tag table is longer than the profile")
    entries = (struct.unpack_from(">4sII", data, 132 + 12 * i) for i in range(count))
    return {name: data[start : start + length] for name, start, length in entries}
