"""PNG chunks, and PNG files of which only the pixels, the profile and the orientation are read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from tests.images.profiles import rgb_profile
from unclip.images import png
from unclip.images.reading import check_header, open_image, opened

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def encode(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def saved(image: Image.Image = NOISE, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def insert(data: bytes, before: bytes, chunk: bytes) -> bytes:
    """PNG data with another chunk before the first one of a kind."""
    at = data.index(before) - 4
    return data[:at] + chunk + data[at:]


def rotation() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


HARMLESS = {
    "text of 3 MB": encode(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))),
    "text of the orientation's key, of 3 MB": encode(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(3 << 20))
    ),
    "text without a separator": encode(b"zTXt", b"\0"),
    "international text that is no UTF-8": encode(b"iTXt", b"Comment\0\0\0\0\0\xff\xff"),
    "XMP that is no UTF-8": encode(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff\xff"),
    "a raw profile that is not hexadecimal": encode(b"tEXt", b"Raw profile type exif\0\n1\n2\nzz"),
    "malformed EXIF": encode(b"eXIf", b"Exif\0\0no TIFF header"),
    "an empty EXIF": encode(b"eXIf", b""),
    "a wrong checksum": encode(b"tEXt", b"Comment\0x", checksum=1),
    "EXIF with a wrong checksum": encode(b"eXIf", rotation(), checksum=1),
    "a short pHYs": encode(b"pHYs", b"1"),
    "a short gAMA": encode(b"gAMA", b""),
    "a short acTL": encode(b"acTL", b"12"),
    "an animation of no frames": encode(b"acTL", bytes(8)),
    "an unknown chunk": encode(b"abCd", b"x"),
}


@pytest.mark.parametrize("where", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("name", HARMLESS)
def test_pixels_are_read_whatever_the_metadata(name: str, where: bytes) -> None:
    data = insert(saved(), where, HARMLESS[name])
    assert open_image(io.BytesIO(data), "image").tobytes() == NOISE.tobytes()
    assert check_header(io.BytesIO(data), "image") == ((60, 40), False)


@pytest.mark.parametrize("where", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    "chunk",
    [
        encode(b"eXIf", rotation()),
        encode(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        encode(b"tEXt", b"Raw profile type exif\0\nexif\n  99\n" + (b"Exif\0\0" + rotation()).hex().encode()),
        encode(
            b"zTXt",
            b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  99\n" + (b"Exif\0\0" + rotation()).hex().encode()),
        ),
    ],
)
def test_the_orientation_is_known_wherever_it_is_stored(chunk: bytes, where: bytes) -> None:
    data = insert(saved(), where, chunk)
    assert check_header(io.BytesIO(data), "image")[0] == (40, 60)
    assert np.array_equal(np.asarray(open_image(io.BytesIO(data), "image")), np.rot90(np.asarray(NOISE), -1))


def test_the_header_of_a_png_is_read_without_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    assert check_header(io.BytesIO(data), "image")[0] == (60, 40)


def profile_of(data: bytes) -> bytes | None:
    with opened(io.BytesIO(data), "the image") as image:
        image.load()
        return image.info.get("icc_profile")


def test_the_colour_profile_is_read() -> None:
    assert profile_of(saved(icc_profile=rgb_profile())) == rgb_profile()
    assert profile_of(saved()) is None


@pytest.mark.parametrize(
    "data",
    [
        b"name\0\0" + zlib.compress(bytes(3 << 20)),
        b"name\0\0no zlib",
        b"name\0\1" + zlib.compress(b"x"),
        b"\0\0" + zlib.compress(b"x"),
        b"name\0",
        b"",
    ],
)
def test_a_damaged_colour_profile_is_empty(data: bytes) -> None:
    damaged = insert(saved(), b"IDAT", encode(b"iCCP", data))
    assert profile_of(damaged) == b""
    assert open_image(io.BytesIO(damaged), "image").tobytes() == NOISE.tobytes()
    assert profile_of(insert(saved(), b"IDAT", encode(b"iCCP", b"name\0\0" + zlib.compress(b"x"), checksum=1))) == b""


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_images_of_any_mode_are_read_as_pillow_reads_them(mode: str) -> None:
    image = (
        Image.fromarray(np.asarray(NOISE.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else NOISE.convert(mode)
    )
    text = PngInfo()
    text.add_text("Comment", "x")
    options = {"transparency": 7} if mode == "P" else {}
    data = saved(image, pnginfo=text, **options)
    with opened(io.BytesIO(data), "the image") as found, Image.open(io.BytesIO(data)) as expected:
        assert (found.mode, found.size) == (expected.mode, expected.size)
        assert found.tobytes() == expected.tobytes()
        assert found.info.get("transparency") == expected.info.get("transparency")
        assert "Comment" not in found.info


def test_chunks_are_listed_with_their_places() -> None:
    data = insert(saved(), b"IDAT", encode(b"tEXt", b"Comment\0x"))
    file = io.BytesIO(data)
    found = list(png.chunks(file))
    assert [chunk.kind for chunk in found] == [b"IHDR", b"tEXt", b"IDAT", b"IEND"]
    assert png.read_chunk(file, found[1]) == b"Comment\0x"
    assert [chunk.kind for chunk in png.chunks(io.BytesIO(data[:50]))] == [b"IHDR", b"tEXt"]
