"""Masks: which pixels are known, and what the notes say of unusual masks."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.helpers import box_mask
from unclip.errors import RequestError
from unclip.modes.inpainting.canvas import KEEP, Box, Canvas
from unclip.modes.inpainting.mask import ROUNDED
from unclip.modes.inpainting.prepare import open_canvas
from unclip.requests.request import Request

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


def white_box(box: tuple[int, int, int, int] = (10, 5, 30, 25), size: tuple[int, int] = (60, 40)) -> Image.Image:
    return box_mask(size, box)


MASKED = np.asarray(white_box()) == 255


def inpainting(image=IMAGE, mask=None, **fields) -> Canvas:
    return open_canvas(Request(mode="inpaint", prompt="x", image=image, mask=mask, **fields))


def test_white_repaints() -> None:
    canvas = inpainting(mask=white_box())
    assert np.array_equal(canvas.known == 0, MASKED)
    assert np.array_equal(canvas.known == KEEP, ~MASKED)
    assert np.array_equal(canvas.pixels, PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16", "LA"])
def test_masks_of_any_mode_are_read(mode: str) -> None:
    deep = Image.fromarray(np.where(MASKED, 65535, 0).astype(np.uint16))
    given = deep if mode == "I;16" else white_box().convert(mode)
    assert np.array_equal(inpainting(mask=given).known == 0, MASKED)


def test_black_repaints_in_mode_black() -> None:
    assert np.array_equal(inpainting(mask=white_box(), mask_mode="black").known == KEEP, MASKED)


@pytest.mark.parametrize("mode", ["white", "black", "alpha"])
@pytest.mark.parametrize("feather", [None, 2])
def test_pasting_does_not_change_the_given_mask(mode: str, feather: int | None) -> None:
    given = white_box()
    given.putalpha(given.convert("L").point(lambda value: 255 - value))
    before = given.tobytes()
    canvas = inpainting(mask=given, mask_mode=mode, feather=feather)
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (40, 40), "white"))
    assert (canvas.known[:, :40] == KEEP).all()
    assert given.tobytes() == before


def test_transparent_repaints_in_mode_alpha() -> None:
    given = IMAGE.copy()
    given.putalpha(Image.fromarray(np.where(MASKED, 0, 255).astype(np.uint8)))
    assert np.array_equal(inpainting(mask=given, mask_mode="alpha").known == 0, MASKED)
    with pytest.raises(RequestError, match="no transparency"):
        inpainting(mask=white_box(), mask_mode="alpha")


def test_without_a_mask_the_transparent_pixels_of_the_image_repaint() -> None:
    transparent = IMAGE.copy()
    transparent.putalpha(Image.fromarray(np.where(MASKED, 0, 255).astype(np.uint8)))
    canvas = inpainting(transparent)
    assert np.array_equal(canvas.known == 0, MASKED)
    assert canvas.image().mode == "RGB"  # they will be filled
    for fields in ({}, {"mask_mode": "white"}):
        with pytest.raises(RequestError, match="mask is missing"):
            inpainting(**fields)


def test_transparency_is_preserved_where_a_mask_keeps_it() -> None:
    dark = PIXELS // 8
    transparent = Image.fromarray(dark)
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, 20:50] = 90
    transparent.putalpha(Image.fromarray(alpha))
    canvas = inpainting(transparent, white_box())
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (8, 8), (0, 0, 255)))  # too different for colour matching
    result = np.asarray(canvas.image())
    assert np.array_equal(result[~MASKED], np.dstack([dark, alpha])[~MASKED])
    assert (result[MASKED] == (0, 0, 255, 255)).all()


def test_grey_blends() -> None:
    soft = white_box().point(lambda v: v // 2)
    canvas = inpainting(mask=soft)
    assert set(np.unique(canvas.known)) == {255 - 127, 255}
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (40, 40), "black"))
    expected = (PIXELS[MASKED] * (128 / 255)).round()
    assert np.abs(canvas.pixels[MASKED].astype(int) - expected).max() <= 1


def test_feathering_fades_within_the_repainted_side() -> None:
    half = white_box((30, 0, 60, 40))
    known = inpainting(mask=half, feather=8).known
    assert (known[:, :30] == KEEP).all()
    row = known[20, 30:]
    assert (np.diff(row.astype(int)) <= 0).all()
    assert row[0] > 200
    assert row[4] > 20
    assert row[10] < 10
    assert row[20] == 0


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(RequestError, match="the mask is 30x40 and the image 60x40"):
        inpainting(mask=white_box(size=(30, 40)))


# ---- transparent masks


@pytest.mark.parametrize("mode", ["white", "black"])
@pytest.mark.parametrize("hidden", [0, 90, 255])  # drawing programs store any colour below transparency
def test_transparent_pixels_of_a_mask_are_kept(mode: str, hidden: int) -> None:
    strokes = Image.new("LA", (60, 40), (hidden, 0))
    strokes.paste((255 if mode == "white" else 0, 255), (10, 5, 30, 25))
    for mask in (strokes, strokes.convert("RGBA")):
        canvas = inpainting(mask=mask, mask_mode=mode)
        assert np.array_equal(canvas.known == 0, MASKED) and np.array_equal(canvas.known == KEEP, ~MASKED)
        assert canvas.notes == ()


def test_a_half_transparent_white_pixel_repaints_by_half() -> None:
    strokes = Image.new("LA", (60, 40), (255, 0))
    strokes.paste((255, 128), (10, 5, 30, 25))
    assert set(np.unique(inpainting(mask=strokes).known[MASKED])) == {255 - 128}


def test_a_mask_whose_transparency_means_repaint_names_the_mode_for_it() -> None:
    cut = IMAGE.copy()
    cut.putalpha(Image.fromarray(np.where(MASKED, 0, 255).astype(np.uint8)))
    [note] = inpainting(mask=cut).notes
    assert "mixed" in note and note.endswith("mask_mode alpha repaints its transparent pixels")
    black = Image.new("LA", (60, 40), (0, 255))
    black.paste((0, 0), (10, 5, 30, 25))
    [note] = inpainting(mask=black).notes
    assert note == "the mask has no opaque white pixels; mask_mode alpha repaints its transparent pixels"


# ---- nearly black, nearly white


@pytest.mark.parametrize("mode", ["white", "black", "alpha"])
@pytest.mark.parametrize("off", [1, 6, ROUNDED - 1])
def test_a_background_that_is_nearly_black_is_kept_with_a_note(mode: str, off: int) -> None:
    grey = np.where(MASKED, 255 - off, off).astype(np.uint8)
    mask = Image.fromarray(grey if mode == "white" else 255 - grey)
    if mode == "alpha":
        alpha, mask = mask, Image.new("L", mask.size)
        mask.putalpha(alpha)
    canvas = inpainting(mask=mask, mask_mode=mode)
    assert np.array_equal(canvas.known == 0, MASKED) and np.array_equal(canvas.known == KEEP, ~MASKED)
    [note] = canvas.notes
    keep = {"white": "black", "black": "white", "alpha": "opaque"}[mode]
    assert note.startswith(f"2,000 pixels of the mask are nearly {keep} (up to {off} of 255 from it); they were kept")


def test_a_grey_background_blends_with_a_note() -> None:
    canvas = inpainting(mask=Image.fromarray(np.where(MASKED, 255, 20).astype(np.uint8)))
    assert np.array_equal(canvas.known == 255 - 20, ~MASKED)
    [note] = canvas.notes
    assert note.startswith("83% of the mask is neither black nor white (mostly 20 of 255 from black)")


def test_the_noise_of_a_jpeg_mask_is_rounded() -> None:
    buffer, white = io.BytesIO(), np.asarray(white_box((83, 85, 161, 163), (320, 240)))
    Image.fromarray(white).save(buffer, "JPEG", quality=75)
    with Image.open(buffer) as mask:
        noisy = np.asarray(mask).copy()
        canvas = inpainting(Image.new("RGB", mask.size), mask=mask)
    slightly = (noisy > 0) & (noisy < ROUNDED)
    assert slightly.any() and (canvas.known[slightly] == KEEP).all()
    assert (canvas.known[(noisy > 255 - ROUNDED)] == 0).all()


def test_a_soft_brush_has_no_note() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 20).round().astype(np.uint8), (20, 1)))
    mask = Image.new("L", (60, 40))
    mask.paste(ramp, (20, 10))
    canvas = inpainting(mask=mask)
    assert canvas.notes == ()
    assert np.array_equal(canvas.known[10:30, 21:39], 255 - np.asarray(ramp)[:, 1:19])
