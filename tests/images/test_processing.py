"""Conversion between images and tensors, and images made square."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.images.profiles import rgb_profile
from unclip.errors import DataError
from unclip.images.colour import ColourProfile
from unclip.images.processing import LARGE, open_square, to_images, to_tensor


def test_images_and_tensors_convert_without_loss() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.dtype) == ((3, 5, 7), torch.float32)
    assert (tensor.min() >= -1, tensor.max() <= 1) == (True, True)
    assert to_images(tensor[None])[0].tobytes() == image.tobytes()
    assert np.asarray(to_images(torch.tensor([-9.0, 9.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1))[1]).tolist() == [
        [[255, 255, 255]]
    ]


# ---- squares


def stripes(width: int, height: int) -> Image.Image:
    """Thirds across the longer side: red, green, blue."""
    image, long = Image.new("RGB", (width, height), (0, 0, 255)), max(width, height)
    for part, colour in ((2 * long // 3, (0, 255, 0)), (long // 3, (255, 0, 0))):
        image.paste(colour, (0, 0, *((part, height) if width >= height else (width, part))))
    return image


def test_the_middle_is_cropped_or_the_whole_is_padded() -> None:
    image = stripes(90, 30)
    square, [note] = open_square(image, "crop")
    assert square.size == (30, 30) and square.getextrema() == ((0, 0), (255, 255), (0, 0))
    assert note == "the image, 90x30, was cropped to its middle 30x30; see fit pad"
    square, [note] = open_square(image, "pad")
    assert square.size == (90, 90) and square.crop((0, 30, 90, 60)).tobytes() == image.tobytes()
    assert note == "the image, 90x30, was padded to 90x90"
    same, notes = open_square(stripes(30, 30), "crop")
    assert notes == () and same.tobytes() == stripes(30, 30).tobytes()


@pytest.mark.parametrize("size", [(9000, 300), (300, 9000), (20_000, 1), (4300, 4200)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_images_of_any_size_are_made_square(size: tuple[int, int], format: str) -> None:
    data = io.BytesIO()
    stripes(*size).save(data, format)
    for fit in ("crop", "pad"):
        square, _ = open_square(data, fit)
        side = (min if fit == "crop" else max)(size)
        assert square.width == square.height < LARGE and square.width >= min(side, LARGE // 2)
        middle = square.getpixel((square.width // 2, square.width // 2))
        assert np.abs(np.array(middle) - (0, 255, 0)).max() <= 8


def test_a_reduced_image_is_upright_and_keeps_its_proportions() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    stripes(9000, 3000).save(data, "JPEG", exif=exif)
    square, [note] = open_square(data, "pad")
    assert note == "the image, 3000x9000, was padded to 9000x9000"
    column = square.getpixel((square.width // 2, square.width // 6))
    assert np.abs(np.array(column) - (255, 0, 0)).max() <= 8


def test_an_image_in_memory_is_not_changed() -> None:
    data = io.BytesIO()
    stripes(9000, 100).save(data, "JPEG")
    with Image.open(data) as image:
        open_square(image, "crop")
        assert image.size == (9000, 100)


def test_pillows_pixel_limit_holds_for_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    stripes(100, 90).save(data, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8999)
    with pytest.raises(DataError, match="larger than Pillow's limit of 8,999 pixels"):
        open_square(data, "crop")


def test_squares_are_srgb_and_notes_name_ignored_profiles(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    for format in ("PNG", "TIFF"):
        image.save(tmp_path / "image", format, icc_profile=rgb_profile())
        square, _ = open_square(tmp_path / "image", "crop")
        expected = ColourProfile(rgb_profile()).to_srgb(image.crop((5, 0, 25, 20)))
        assert square.tobytes() == expected.tobytes() and "icc_profile" not in square.info
    image.save(tmp_path / "image", "TIFF", icc_profile=b"none")
    square, notes = open_square(tmp_path / "image", "crop")
    assert square.tobytes() == image.crop((5, 0, 25, 20)).tobytes()
    assert notes[0] == "the colour profile of the image is damaged, and is ignored"


def test_transparent_and_deep_images_become_opaque_8_bit_squares() -> None:
    clear = Image.new("LA", (5000, 4), (0, 0))
    square, notes = open_square(clear, "pad")
    assert square.getextrema() == ((255, 255),) * 3 and "made white" in notes[0]
    deep = Image.fromarray(np.full((4, 5000), 0.5, np.float32))
    assert open_square(deep, "crop")[0].getpixel((1, 1)) == (128, 128, 128)
