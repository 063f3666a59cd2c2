"""The canvas of an edit: opening it, and cropping and pasting windows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from unclip.errors import DataError, RequestError
from unclip.modes.inpainting.canvas import KEEP, Box, Canvas
from unclip.modes.inpainting.plan import Window, plan_tiling
from unclip.modes.inpainting.prepare import open_canvas
from unclip.requests.fields import ANCHORS
from unclip.requests.request import Request

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)


def white_box(box: tuple[int, int, int, int] = (10, 5, 30, 25), size: tuple[int, int] = (60, 40)) -> Image.Image:
    """White in `box` (left, top, right, bottom), black elsewhere."""
    image = Image.new("L", size, 0)
    image.paste(255, box)
    return image


MASKED = np.asarray(white_box()) == 255


def inpainting(image=IMAGE, mask=None, **fields) -> Canvas:
    return open_canvas(Request(mode="inpaint", prompt="x", image=image, mask=mask, **fields))


def outpainting(image=IMAGE, **fields) -> Canvas:
    return open_canvas(Request(mode="outpaint", prompt="x", image=image, **fields))


# ---- images


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_images_of_any_mode_are_read_as_rgb(mode: str) -> None:
    image = IMAGE.convert(mode)
    assert np.array_equal(inpainting(image, white_box()).pixels, np.asarray(image.convert("RGB")))


def test_16_bit_values_are_scaled() -> None:
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    pixels = inpainting(Image.fromarray(values), white_box()).pixels
    assert np.array_equal(pixels[..., 0], (values / 257).round())


def test_an_image_is_rotated_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    IMAGE.save(tmp_path / "rotated.png", exif=exif)
    canvas = inpainting(tmp_path / "rotated.png", white_box((0, 0, 9, 9), (40, 60)))
    assert np.array_equal(canvas.pixels, np.rot90(PIXELS, -1))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(png(IMAGE)[:300])
    for name, message in (
        ("no.png", "not a readable image"),
        ("none.png", "No such file"),
        ("cut.png", "cannot read"),
        (".", "image"),
    ):
        with pytest.raises(DataError, match=message):
            inpainting(tmp_path / name, white_box())
    with pytest.raises(DataError, match="mask"):
        inpainting(IMAGE, tmp_path / "no.png")


def png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(RequestError, match="smaller than the image"):
        outpainting(size=(50, 50))
    with pytest.raises(RequestError, match="give a larger one"):
        outpainting(size=(60, 40))
    with pytest.raises(RequestError, match="at most 8192"):
        outpainting(left=8190)
    with pytest.raises(DataError, match="the image is 8193x1,"):
        inpainting(Image.new("RGB", (8193, 1)), white_box())


# ---- outpainting


def test_margins_determine_the_canvas() -> None:
    canvas = outpainting(left=3, right=50, bottom=7)
    assert (canvas.size, canvas.origin) == ((113, 47), (3, 0, 63, 40))
    assert np.array_equal(canvas.pixels[:40, 3:63], PIXELS)
    assert (canvas.known == KEEP).sum() == 40 * 60


def test_a_side_prompt_without_a_margin_is_refused() -> None:
    outpainting(left=9, left_prompt="a cat")
    for fields in ({"left": 9}, {"size": (80, 40), "anchor": "right"}):
        with pytest.raises(RequestError, match="right_prompt is given, but there is no margin on that side"):
            outpainting(**fields, right_prompt="a cat")


@pytest.mark.parametrize("anchor", ANCHORS)
def test_the_anchor_places_the_image(anchor: str) -> None:
    left, top, _, _ = outpainting(size=(101, 81), anchor=anchor).origin
    assert left == (0 if "left" in anchor else 41 if "right" in anchor else 20)
    assert top == (0 if "top" in anchor else 41 if "bottom" in anchor else 20)


def test_a_window_lies_beyond_the_side_with_most_masked_pixels() -> None:
    canvas = outpainting(left=60, right=60, top=60, bottom=60)
    assert canvas.side_of(Box(0, 60, 40)) == "left"
    assert canvas.side_of(Box(140, 60, 40)) == "right"
    assert canvas.side_of(Box(70, 0, 40)) == "top"
    assert canvas.side_of(Box(70, 120, 40)) == "bottom"
    assert canvas.side_of(Box(70, 60, 40)) is None


def test_a_window_of_a_narrow_margin_lies_beyond_its_side() -> None:
    canvas = outpainting(left=3, right=8, top=2)
    assert canvas.side_of(Box(0, 0, 40)) == "left" and canvas.side_of(Box(31, 0, 40)) == "right"
    assert canvas.side_of(Box(12, 0, 40)) == "top"


# ---- crop and paste


def test_pasting_changes_only_masked_pixels() -> None:
    dark = PIXELS // 8
    canvas = inpainting(Image.fromarray(dark), white_box())
    canvas.paste(Box(5, 0, 30), Image.new("RGB", (64, 64), (251, 252, 253)))  # too different for colour matching
    assert np.array_equal(canvas.pixels[~MASKED], dark[~MASKED])
    assert (canvas.pixels[MASKED] == (251, 252, 253)).all()
    assert (canvas.known == KEEP).all()


def test_known_pixels_are_cropped_and_resized() -> None:
    canvas = inpainting(mask=white_box())
    image, known = canvas.crop_known(Box(0, 0, 40), 40)
    assert np.array_equal(((image.permute(1, 2, 0).numpy() + 1) * 127.5).round(), PIXELS[:, :40])
    assert np.array_equal(known[0].numpy() == 0, MASKED[:, :40])
    image, known = canvas.crop_known(Box(0, 0, 40), 16)
    assert (image.shape, known.shape) == ((3, 16, 16), (1, 16, 16))


def test_transparent_pixels_are_cropped_as_white_and_preserved() -> None:
    transparent = Image.fromarray(np.dstack([PIXELS, np.full((40, 60), 255, np.uint8)]))
    transparent.paste((9, 9, 9, 0), (0, 0, 40, 40))
    canvas = outpainting(image=transparent, right=20)
    assert (canvas.pixels[:, :40] == 9).all()
    for crop in (
        canvas.crop_known(Box(0, 0, 40), 40)[0],
        canvas.crop(Box(0, 0, 40), 40),
        canvas.copy_opaque().crop_known(Box(0, 0, 40), 40)[0],
    ):
        assert (crop == 1).all()
    canvas.paste(Box(40, 0, 40), Image.new("RGB", (40, 40), "red"))
    assert (np.asarray(canvas.image())[:, :40] == (9, 9, 9, 0)).all()


def test_soft_masks_blend_transparent_pixels_as_white() -> None:
    transparent = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    canvas = inpainting(transparent, Image.new("L", (60, 40), 128))
    canvas.paste(Box(0, 0, 60), Image.new("RGB", (60, 60), "white"))
    assert (np.asarray(canvas.image()) == 255).all()


def test_partly_known_pixels_are_cropped_as_masked() -> None:
    image, known = inpainting(mask=white_box().point(lambda value: value // 2)).crop_known(Box(0, 0, 40), 40)
    assert np.array_equal(known[0].numpy() == 0, MASKED[:, :40])


def test_nothing_is_known_past_the_canvas() -> None:
    canvas = inpainting(mask=white_box())
    image, known = canvas.crop_known(Box(-6, -10, 60), 60)
    there, inside = known[0, 10:50, 6:] == 1, (slice(10, 50), slice(6, 60))
    assert known.shape == (1, 60, 60) and known.sum() == known[0][inside].sum()
    assert np.array_equal(there.numpy(), ~MASKED[:, :54])
    visible = ((image[:, *inside].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.array_equal(visible, PIXELS[:, :54])


@pytest.mark.parametrize("transposed", [False, True])
def test_a_thin_canvas_is_mirrored_over_its_window(transposed: bool) -> None:
    strip, mask = PIXELS[:7], np.zeros((7, 60), np.uint8)
    mask[2, 20:30] = 255
    box = Box(0, -26, 60)
    if transposed:
        strip, mask, box = strip.swapaxes(0, 1), mask.T, Box(-26, 0, 60)
    canvas = inpainting(Image.fromarray(strip.copy()), Image.fromarray(mask.copy()))
    image, known = canvas.crop_known(box, 60)
    pixels = ((image.permute(1, 2, 0).numpy() + 1) * 127.5).round()
    kept = known[0].numpy()
    if transposed:
        pixels, kept = pixels.swapaxes(0, 1), kept.T
    for top in range(26 - 14, 54, 14):  # every other copy is upright
        rows = slice(max(0, top), top + 7)
        assert np.array_equal(pixels[rows], PIXELS[:7])
        assert np.array_equal(pixels[top + 7 : top + 14], PIXELS[6::-1][: 60 - top - 7])
        assert kept[top + 2].sum() == 50 and kept[top + 1].all()


def test_a_window_past_the_canvas_is_clipped_when_pasted() -> None:
    dark, generated = PIXELS // 8, Image.fromarray(np.full((60, 60, 3), 240, np.uint8))
    generated.paste((251, 252, 253), (6, 10, 60, 50))
    canvas = inpainting(Image.fromarray(dark), white_box())
    canvas.paste(Box(-6, -10, 60), generated)
    assert (canvas.pixels[MASKED] == (251, 252, 253)).all() and np.array_equal(canvas.pixels[~MASKED], dark[~MASKED])


def test_pasting_within_boxes_leaves_the_rest_masked() -> None:
    canvas = inpainting(Image.fromarray(PIXELS // 8), white_box())
    parts = [Box(0, 0, 15), Box(25, 10, 40)]
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (40, 40), (250, 250, 250)), parts)
    wanted = np.zeros_like(MASKED)
    wanted[:15, :15] = wanted[10:, 25:] = True
    assert np.array_equal(canvas.known < KEEP, MASKED & ~wanted)
    assert ((canvas.pixels == 250).all(-1) == MASKED & wanted).all()


def test_a_sketch_is_a_copy() -> None:
    canvas = inpainting(mask=white_box())
    sketch = canvas.copy_opaque()
    sketch.paste(Box(5, 0, 30), Image.new("RGB", (64, 64)))
    assert (sketch.known == KEEP).all()
    assert np.array_equal(canvas.pixels, PIXELS) and np.array_equal(canvas.known < KEEP, MASKED)


def test_an_object_of_a_sketch_has_the_same_place_and_size_in_the_windows_that_start_from_it() -> None:
    """A sketch is generated with fewer pixels, in a larger box, and part of it is past the canvas."""
    canvas = outpainting(Image.new("RGB", (256, 256), "white"), right=256)
    small = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(small).rectangle((44, 27, 51, 36), fill="black")  # columns 352 to 416 of the canvas, rows 88 to 168
    canvas.paste(Box(0, -128, 512), small)
    boxes = [Window(Box(left, 0, 256), "a cat") for left in (128, 256)]
    tiling = plan_tiling(boxes, 64, [0, 0])
    draft = tiling.assemble([canvas.crop(window.box, 64) for window in boxes], 0.0)[0]  # 3 64 96
    assert draft.shape == (3, 64, 96)
    darkness = (1 - draft.mean(0)) / 2
    rows, columns = darkness.sum(1), darkness.sum(0)
    assert darkness.sum().item() == pytest.approx(16 * 20, rel=0.02)  # a quarter of the canvas's pixels along a side
    for values, centre in ((columns, (384 - 128) / 4), (rows, 128 / 4)):
        places = torch.arange(len(values)) + 0.5
        assert ((values * places).sum() / values.sum()).item() == pytest.approx(centre, abs=0.1)


def test_a_crop_past_the_canvas_repeats_its_edge() -> None:
    canvas = inpainting(mask=white_box())
    visible = ((canvas.crop(Box(-6, -10, 60), 60).permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.array_equal(visible[10:50, 6:], PIXELS[:, :54])
    assert (visible[:10, 6:] == PIXELS[0, :54]).all() and (visible[50:, 6:] == PIXELS[-1, :54]).all()
    assert (visible[10:50, :6] == PIXELS[:, :1]).all()
    assert canvas.crop(Box(0, 0, 40), 16).shape == (3, 16, 16)


def test_covered_pixels_of_boxes() -> None:
    covered = inpainting(mask=white_box()).covered([Box(-6, -10, 20), Box(50, 30, 40)])
    assert covered.sum() == 14 * 10 + 10 * 10 and covered[:10, :14].all() and covered[30:, 50:].all()


def test_a_window_past_the_canvas_lies_beyond_a_side_by_its_pixels_on_it() -> None:
    canvas = open_canvas(Request(mode="outpaint", prompt="x", image=Image.new("RGB", (60, 20)), right=60))
    assert canvas.side_of(Box(40, 0, 64)) == "right"
