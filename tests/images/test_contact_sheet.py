import io

import pytest
from PIL import Image

from tests.images.profiles import rgb_profile
from unclip.errors import InputError, UnclipError
from unclip.images.colour import ColourProfile
from unclip.images.contact_sheet import GAP, LABEL, MAX_PIXELS, layout, sheet


@pytest.fixture
def pictures(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (40, 40) if i else (20, 40), colour).save(tmp_path / f"{i}.png")
    return [(tmp_path / f"{i}.png", "a label that is far too long\nfor its picture") for i in range(3)]


@pytest.mark.parametrize("labels", [False, True])
def test_pictures_lie_in_reading_order(pictures, labels):
    plan = layout(3, (40, 40), labels)
    with Image.open(io.BytesIO(sheet(pictures, plan))) as image:
        assert image.size == plan.size == (80 + GAP, 80 + GAP + 2 * LABEL * labels)
        below = 40 + GAP + LABEL * labels
        assert image.getpixel((20, 20)) == (255, 0, 0) and image.getpixel((5, 20)) == (255, 255, 255)  # centred
        assert image.getpixel((60 + GAP, 20)) == (0, 255, 0) and image.getpixel((20, below + 20)) == (0, 0, 255)
        if labels:
            assert image.crop((0, 40, 40, 40 + LABEL)).convert("L").getextrema()[0] < 128  # something is written
        assert image.crop((40, 0, 40 + GAP, image.height)).getextrema() == ((255, 255),) * 3  # no label runs over


def test_too_large_a_sheet_is_refused_before_it_is_made():
    assert layout(1000, (256, 256), False).size[0] < 10_000
    with pytest.raises(InputError, match="--grid of 10,000 images"):
        layout(10_000, (256, 256), False)
    width, height = layout(1200, (256, 256), True).size
    assert width * height <= MAX_PIXELS


def test_a_damaged_picture_is_named(pictures):
    pictures[1][0].write_bytes(b"no")
    with pytest.raises(UnclipError, match=r"1\.png' cannot be read"):
        sheet(pictures, layout(3, (40, 40), False))


def test_a_sheet_shows_colours_in_srgb_and_transparency_on_white(tmp_path):
    red = Image.new("RGB", (40, 40), (200, 60, 50))
    red.save(tmp_path / "tagged.png", icc_profile=rgb_profile())
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    images = [(tmp_path / "tagged.png", ""), (tmp_path / "clear.png", "")]
    with Image.open(io.BytesIO(sheet(images, layout(2, (40, 40), False)))) as image:
        assert image.getpixel((20, 20)) == ColourProfile(rgb_profile()).to_srgb(red).getpixel((0, 0)) != (200, 60, 50)
        assert image.getpixel((60 + GAP, 20)) == (255, 255, 255) and "icc_profile" not in image.info
