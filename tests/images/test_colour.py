"""Colour profiles: preserved where an RGB file can hold them, else converted to sRGB; damaged ones are ignored."""

import io
import random

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.images.profiles import cmyk_profile, grey_profile, rgb_profile
from unclip.images.colour import MAX_CARRIED, MAX_READ, ColourProfile, to_rgb, to_srgb

RAMP = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))


def reference(image: Image.Image, profile: bytes) -> np.ndarray:
    """An image in sRGB, by LittleCMS alone."""
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    converted = ImageCms.profileToProfile(image, source, target, intent, "RGB", flags=flags)
    assert converted is not None
    return np.asarray(converted).astype(int)


def differ(a: Image.Image, b: np.ndarray) -> int:
    return int(np.abs(np.asarray(a).astype(int) - b).max())


def test_an_rgb_profile_is_preserved_with_the_values() -> None:
    rgb, profile, notes = to_rgb(COLOURS, rgb_profile())
    assert (profile, notes) == (ColourProfile(rgb_profile()), ()) and rgb.tobytes() == COLOURS.tobytes()
    assert differ(profile.to_srgb(rgb), reference(COLOURS, rgb_profile())) == 0
    assert differ(profile.to_srgb(rgb), np.asarray(rgb).astype(int)) > 20


def test_srgb_converts_to_a_profile_and_back() -> None:
    muted = COLOURS.point(lambda value: 64 + value // 2)
    profile = ColourProfile(rgb_profile())
    assert differ(profile.to_srgb(profile.from_srgb(muted)), np.asarray(muted).astype(int)) <= 2


def test_a_grey_image_with_an_rgb_profile_keeps_both() -> None:
    rgb, profile, notes = to_rgb(RAMP, rgb_profile())
    assert profile == ColourProfile(rgb_profile()) and notes == ()
    assert np.array_equal(np.asarray(rgb)[..., 1], np.asarray(RAMP))


@pytest.mark.parametrize("gamma", [1.8, 2.2, 2.4])
def test_a_grey_profile_becomes_an_rgb_profile_that_looks_the_same(gamma: float) -> None:
    rgb, profile, notes = to_rgb(RAMP, grey_profile(gamma))
    assert profile is not None and notes == () and np.array_equal(np.asarray(rgb)[..., 2], np.asarray(RAMP))
    assert differ(profile.to_srgb(rgb), reference(RAMP, grey_profile(gamma))) <= 1


def test_a_grey_profile_of_lightness_is_converted() -> None:
    rgb, profile, notes = to_rgb(RAMP, grey_profile(1.0, "Lab "))
    assert profile is None and notes == ()
    assert differ(rgb, reference(RAMP, grey_profile(1.0, "Lab "))) == 0


def test_cmyk_is_converted_by_its_profile() -> None:
    image = Image.new("CMYK", (2, 1))
    image.putpixel((1, 0), (255, 0, 0, 0))
    rgb, profile, notes = to_rgb(image, cmyk_profile())
    assert (profile, notes, rgb.getpixel((0, 0))) == (None, (), (255, 255, 255))
    red, green, blue = rgb.getpixel((1, 0))
    assert red == pytest.approx(162, abs=3) and red == green == blue  # L* 67, whereas cyan has no red
    assert to_rgb(image, None)[0].getpixel((1, 0)) == (0, 255, 255)


@pytest.mark.parametrize("size", [MAX_CARRIED, MAX_CARRIED + 100])
def test_a_profile_too_long_for_a_png_is_converted(size: int) -> None:
    rgb, profile, notes = to_rgb(COLOURS, rgb_profile(size=size))
    assert (profile, notes) == (None, ()) and differ(rgb, reference(COLOURS, rgb_profile())) <= 1


@pytest.mark.parametrize(
    ("profile", "mode", "why"),
    [
        (b"", "RGB", "is damaged"),
        (b"no profile" * 100, "RGB", "is damaged"),
        (rgb_profile()[:300], "RGB", "is damaged"),
        (grey_profile()[:140], "L", "is damaged"),
        (bytes(MAX_READ + 1), "RGB", "has 16,777,217 bytes"),
        (cmyk_profile(), "RGB", "is for CMYK colours, but the image is RGB"),
        (rgb_profile(), "CMYK", "is for RGB colours, but the image is CMYK"),
        (grey_profile(), "RGB", "is for GRAY colours, but the image is RGB"),
    ],
)
def test_a_profile_that_does_not_apply_is_ignored_with_a_note(profile: bytes, mode: str, why: str) -> None:
    image = COLOURS.convert(mode)
    for found, *_, notes in (to_rgb(image, profile), to_srgb(image, profile)):
        assert notes == (f"the colour profile of the image {why}, and is ignored",)
        assert found.tobytes() == image.convert("RGB").tobytes()


def test_damaged_profiles_break_nothing() -> None:
    rng = random.Random(0)
    for profile, image in ((rgb_profile(), COLOURS), (grey_profile(), RAMP), (cmyk_profile(), COLOURS.convert("CMYK"))):
        for _ in range(60):
            broken = bytearray(profile)
            for _ in range(rng.choice((1, 3, 10))):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            cut = bytes(broken[: rng.choice((len(broken), rng.randrange(len(broken))))])
            rgb, carried, _ = to_rgb(image, cut)
            assert (rgb.mode, rgb.size) == ("RGB", image.size)
            if carried is not None:
                assert carried.to_srgb(carried.from_srgb(rgb)).size == rgb.size
            assert to_srgb(image, cut)[0].mode == "RGB"
