"""Pixels of images of any mode."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.images.profiles import cmyk_profile, grey_profile, rgb_profile
from unclip.errors import DataError
from unclip.images.colour import ColourProfile
from unclip.images.pixels import read_pixels, split_alpha, to_eight_bits, to_srgb_on_white

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def eight_bits(values: np.ndarray) -> np.ndarray:
    found = to_eight_bits(Image.fromarray(values), "the image")
    assert found.mode == "L"
    return np.asarray(found)


def tiff(values: np.ndarray, path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


# ---- more than 8 bits


def test_floats_from_0_to_1_are_scaled(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)
    found = read_pixels(tiff(values, tmp_path / "float.tiff"), "image")
    assert np.array_equal(found.colours[..., 1], (255 * values).round()) and found.notes == ()


def test_floats_from_0_to_255_are_values_of_8_bits() -> None:
    values = np.linspace(0, 255, 2400, dtype=np.float32).reshape(40, 60)
    assert np.array_equal(eight_bits(values), values.round())


def test_rounding_errors_of_floats_are_clipped() -> None:
    assert eight_bits(np.array([[-1e-6, 1 + 1e-6]], np.float32)).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, np.nan], "values that are not finite"),
        ([0.0, np.inf], "values that are not finite"),
        ([0.0, 3.5], "float values from 0 to 3.5: scale them"),  # brighter than white, or nearly black?
        ([-0.5, 1.0], "float values from -0.5 to 1"),
        ([0.0, 65535.0], "float values from 0 to 65535"),
    ],
)
def test_other_floats_are_refused(values: list[float], message: str, tmp_path: Path) -> None:
    path = tiff(np.array([values], np.float32), tmp_path / "float.tiff")
    with pytest.raises(DataError, match=f"the image .*float.tiff' has {message}"):
        read_pixels(path, "image")


def test_whole_numbers_of_16_bits_are_scaled() -> None:
    values = np.linspace(0, 65535, 2400).reshape(40, 60).astype(np.uint16)
    assert np.array_equal(eight_bits(values), (values / 257).round())
    assert np.array_equal(eight_bits(values.astype(np.int32)), (values / 257).round())
    with pytest.raises(DataError, match="values from 0 to 65536: save it with 8 bits"):
        eight_bits(np.array([[0, 65536]], np.int32))


# ---- alpha and colours


def test_alpha_is_split_off_unless_it_is_opaque() -> None:
    colours, alpha = split_alpha(Image.new("RGBA", (3, 2), (9, 8, 7, 6)))
    assert colours.getpixel((0, 0)) == (9, 8, 7) and alpha is not None and alpha.getpixel((0, 0)) == 6
    assert split_alpha(Image.new("RGBA", (3, 2), (9, 8, 7, 255)))[1] is None
    grey, alpha = split_alpha(Image.new("LA", (3, 2), (9, 0)))
    assert grey.getpixel((0, 0)) == 9 and alpha is not None


def test_every_mode_becomes_an_8_bit_one() -> None:
    expected = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK", "HSV": "RGB"}
    assert {mode: to_eight_bits(NOISE.convert(mode), "the image").mode for mode in expected} == expected
    key = Image.new("L", (2, 1), 7)
    key.info["transparency"] = 7
    assert to_eight_bits(key, "the image").getpixel((0, 0)) == (7, 0)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_profile_of_every_format_is_read(format: str, tmp_path: Path) -> None:
    NOISE.save(tmp_path / "image", format, icc_profile=rgb_profile())
    found = read_pixels(tmp_path / "image", "image")
    assert found.profile == ColourProfile(rgb_profile()) and found.notes == ()


def test_an_image_with_alpha_keeps_its_profile() -> None:
    for mode, profile in (("RGBA", rgb_profile()), ("LA", grey_profile())):
        image = NOISE.convert(mode)
        image.putalpha(90)
        image.info["icc_profile"] = profile
        found = read_pixels(image, "image")
        assert found.profile is not None and found.alpha is not None and (found.alpha == 90).all()
        assert np.array_equal(found.colours, np.asarray(NOISE.convert(mode[:-1]).convert("RGB")))


def test_a_conversion_of_the_pixels_is_noted(tmp_path: Path) -> None:
    NOISE.convert("CMYK").save(tmp_path / "print.jpg", icc_profile=cmyk_profile())
    found = read_pixels(tmp_path / "print.jpg", "image")
    assert found.profile is None
    assert found.notes == ("the image was converted to sRGB, because its colour profile cannot be kept in an RGB file",)


def test_srgb_on_white() -> None:
    clear = NOISE.convert("RGBA")
    clear.putalpha(0)
    image, notes = to_srgb_on_white(clear)
    assert image.getextrema() == ((255, 255),) * 3 and "made white" in notes[0]
    tagged = NOISE.copy()
    tagged.info["icc_profile"] = rgb_profile()
    image, notes = to_srgb_on_white(tagged)
    assert notes == () and image.tobytes() == ColourProfile(rgb_profile()).to_srgb(NOISE).tobytes()
    assert "icc_profile" not in image.info and tagged.info["icc_profile"] == rgb_profile()
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert to_srgb_on_white(Image.open(buffer))[0].tobytes() == image.tobytes()
