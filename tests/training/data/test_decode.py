"""Stored images to tensors: crop, orientation, transparency, modes, limits and damaged files."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from tests.images.profiles import rgb_profile
from tests.training.data.helpers import BLUE, RED, WHITE, encoded, flat, halves, pixel
from unclip.errors import DataError
from unclip.images.colour import ColourProfile
from unclip.training.data.decode import HEADER, check_header, decode_image


def test_the_shorter_side_is_resized_and_the_centre_kept():
    image = Image.new("RGB", (30, 10), WHITE)
    image.paste(RED, (10, 0, 20, 10))
    out = decode_image(encoded(image), "x", 5)
    assert out.shape == (3, 5, 5) and pixel(out, 2, 2) == RED
    square = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    expected = np.asarray(square.resize((8, 8), Image.Resampling.BICUBIC))  # antialiased
    assert np.array_equal(decode_image(encoded(square), "x", 8).permute(1, 2, 0).numpy(), expected)


def test_a_long_strip_is_cropped():
    assert decode_image(encoded(flat(9, (1, 20_000))), "x", 64).shape == (3, 64, 64)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
def test_exif_orientation_is_applied(format: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise: the left of the file is the top of the image
    out = decode_image(encoded(halves(16, 16), format, exif=exif), "x", 8)
    for x in (1, 6):
        assert torch.tensor(pixel(out, x, 0)).sub(torch.tensor(RED)).abs().max() < 30
        assert torch.tensor(pixel(out, x, 7)).sub(torch.tensor(BLUE)).abs().max() < 30


def test_metadata_that_pillow_refuses_does_not_stop_the_reading():
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * (3 << 20), zip=True)
    for image in (encoded(halves(16, 16), pnginfo=text), encoded(halves(16, 16), exif=b"Exif\0\0no header")):
        assert pixel(decode_image(image, "x", 16), 1, 8) == RED


def test_colours_are_converted_to_srgb():
    tagged = flat(0, (8, 8))
    tagged.paste((200, 60, 50), (0, 0, 8, 8))
    expected = ColourProfile(rgb_profile()).to_srgb(tagged).getpixel((0, 0))
    assert pixel(decode_image(encoded(tagged, icc_profile=rgb_profile()), "x", 8), 1, 1) == expected != (200, 60, 50)


def transparent_images() -> dict[str, bytes]:
    """Left half opaque black, right half a fully transparent other colour."""
    rgba = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    rgba.paste((0, 0, 255, 0), (8, 0, 16, 16))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.paste(1, (8, 0, 16, 16))
    rgb = Image.new("RGB", (16, 16), (0, 0, 0))
    rgb.paste(BLUE, (8, 0, 16, 16))
    return {
        "rgba": encoded(rgba),
        "la": encoded(rgba.convert("LA")),
        "webp": encoded(rgba, "WEBP", lossless=True),
        "palette": encoded(palette, transparency=1),
        "colour key": encoded(rgb, transparency=BLUE),
    }


@pytest.mark.parametrize("name", transparent_images())
def test_transparency_is_composited_on_white(name: str):
    out = decode_image(transparent_images()[name], "x", 16)
    assert pixel(out, 1, 8) == (0, 0, 0) and pixel(out, 14, 8) == WHITE


def test_half_transparency_is_blended():
    out = decode_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), "x", 4)
    assert pixel(out, 1, 1) == (204, 204, 204)


def test_other_modes_become_rgb():
    assert pixel(decode_image(encoded(halves().convert("P")), "x", 8), 0, 0) == RED
    assert pixel(decode_image(encoded(Image.new("L", (4, 4), 77)), "x", 4), 0, 0) == (77,) * 3
    assert pixel(decode_image(encoded(Image.new("1", (4, 4), 1)), "x", 4), 0, 0) == WHITE
    sixteen = Image.fromarray(np.full((4, 4), 100 * 257, dtype=np.uint16))
    assert pixel(decode_image(encoded(sixteen), "x", 4), 0, 0) == (100,) * 3
    cmyk = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), "x", 4)
    assert torch.tensor(pixel(cmyk, 1, 1)).sub(torch.tensor(RED)).abs().max() < 10


def test_the_pixel_limit_holds(monkeypatch):
    data = encoded(flat(0, (20, 10)))
    for limit in (150, 50):  # Pillow itself warns at the first and raises at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="pixels"):
            decode_image(data, "x", 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert decode_image(data, "x", 4).shape == (3, 4, 4)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_damaged_images_raise_only_data_errors(format: str):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    data, rng = encoded(noise, format), random.Random(0)
    for cut in (0, 4, 20, len(data) // 2):
        with pytest.raises(DataError, match=r"^(here.png is |cannot read here.png \()") as caught:
            decode_image(data[:cut], "here.png", 4)
        assert "\n" not in str(caught.value)
    for _ in range(200):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        try:
            decode_image(bytes(broken), "here.png", 4)
        except DataError as error:
            assert str(error).startswith(("here.png is ", "cannot read here.png (")) and "\n" not in str(error)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF"])
def test_further_formats_are_read_whatever_their_name(format: str):
    assert pixel(decode_image(encoded(halves(8, 8), format), "x.png", 8), 1, 1) == RED


def test_other_formats_are_refused():
    with pytest.raises(DataError, match="x.png is not a readable image; give one of PNG, JPEG, WEBP"):
        decode_image(encoded(flat(0), "PPM"), "x.png", 4)


def test_a_header_is_read_without_the_rest_of_the_file():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))
    for long_header in (False, True):
        data, limits = encoded(noise, "JPEG", comment=b"x" * (3 * HEADER if long_header else 9)), []

        def read(limit: int, data: bytes = data, limits: list[int] = limits) -> bytes:
            limits.append(limit)
            return data if limit < 0 else data[:limit]

        check_header(read, "x")
        assert len(data) > 2 * HEADER and limits == ([HEADER, -1] if long_header else [HEADER])
    with pytest.raises(DataError, match="^x is not a readable image"):
        check_header(lambda limit: b"GIF but no", "x")
