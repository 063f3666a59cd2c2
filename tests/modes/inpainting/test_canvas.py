"""Pictures people give, and what becomes of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.errors import DataError, RequestError
from unclip.modes.inpainting.canvas import KEEP, Box, Canvas
from unclip.modes.inpainting.prepare import open_canvas
from unclip.requests.fields import ANCHORS
from unclip.requests.request import Request

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def mask(box: tuple[int, int, int, int] = (10, 5, 30, 25), size: tuple[int, int] = (60, 40)) -> Image.Image:
    """White in `box` (left, top, right, bottom), black elsewhere."""
    image = Image.new("L", size, 0)
    image.paste(255, box)
    return image


FREE = np.asarray(mask()) == 255


def inpainting(image=PICTURE, given=None, **fields) -> Canvas:
    return open_canvas(Request(mode="inpaint", prompt="x", image=image, mask=given, **fields))


def outpainting(image=PICTURE, **fields) -> Canvas:
    return open_canvas(Request(mode="outpaint", prompt="x", image=image, **fields))


# ---- masks


def test_white_repaints() -> None:
    canvas = inpainting(given=mask())
    assert np.array_equal(canvas.known == 0, FREE)
    assert np.array_equal(canvas.known == KEEP, ~FREE)
    assert np.array_equal(canvas.pixels, PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16", "LA"])
def test_a_mask_of_any_mode(mode: str) -> None:
    deep = Image.fromarray(np.where(FREE, 65535, 0).astype(np.uint16))
    given = deep if mode == "I;16" else mask().convert(mode)
    assert np.array_equal(inpainting(given=given).known == 0, FREE)


def test_black_repaints_when_asked() -> None:
    assert np.array_equal(inpainting(given=mask(), mask_mode="black").known == KEEP, FREE)


@pytest.mark.parametrize("mode", ["white", "black", "alpha"])
@pytest.mark.parametrize("feather", [None, 2])
def test_a_canvas_of_any_mask_is_painted_on(mode: str, feather: int | None) -> None:
    given = mask()
    given.putalpha(given.convert("L").point(lambda value: 255 - value))
    before = given.tobytes()
    canvas = inpainting(given=given, mask_mode=mode, feather=feather)
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (40, 40), "white"))
    assert (canvas.known[:, :40] == KEEP).all()
    assert given.tobytes() == before


def test_transparent_repaints_when_asked() -> None:
    given = PICTURE.copy()
    given.putalpha(Image.fromarray(np.where(FREE, 0, 255).astype(np.uint8)))
    assert np.array_equal(inpainting(given=given, mask_mode="alpha").known == 0, FREE)
    with pytest.raises(RequestError, match="no transparency"):
        inpainting(given=mask(), mask_mode="alpha")


def test_the_images_own_transparency_is_the_mask_where_none_is_given() -> None:
    clear = PICTURE.copy()
    clear.putalpha(Image.fromarray(np.where(FREE, 0, 255).astype(np.uint8)))
    canvas = inpainting(clear)
    assert np.array_equal(canvas.known == 0, FREE)
    assert canvas.image().mode == "RGB"  # what was clear is to be filled
    for fields in ({}, {"mask_mode": "white"}):
        with pytest.raises(RequestError, match="mask is missing"):
            inpainting(**fields)


def test_transparency_beside_a_mask_stays_where_it_is_kept() -> None:
    dark = PIXELS // 8
    clear = Image.fromarray(dark)
    alpha = np.full((40, 60), 255, np.uint8)
    alpha[:, 20:50] = 90
    clear.putalpha(Image.fromarray(alpha))
    canvas = inpainting(clear, mask())
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (8, 8), (0, 0, 255)))  # so far off that nothing is matched
    result = np.asarray(canvas.image())
    assert np.array_equal(result[~FREE], np.dstack([dark, alpha])[~FREE])
    assert (result[FREE] == (0, 0, 255, 255)).all()


def test_grey_is_a_share() -> None:
    soft = mask().point(lambda v: v // 2)
    canvas = inpainting(given=soft)
    assert set(np.unique(canvas.known)) == {255 - 127, 255}
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (40, 40), "black"))
    expected = (PIXELS[FREE] * (128 / 255)).round()
    assert np.abs(canvas.pixels[FREE].astype(int) - expected).max() <= 1


def test_feathering_is_on_the_repainted_side_alone_and_falls_with_the_distance() -> None:
    half = mask((30, 0, 60, 40))
    known = inpainting(given=half, feather=8).known
    assert (known[:, :30] == KEEP).all()
    row = known[20, 30:]
    assert (np.diff(row.astype(int)) <= 0).all()
    assert row[0] > 200
    assert row[4] > 20
    assert row[10] < 10
    assert row[20] == 0


def test_a_mask_of_another_size_is_told_with_both_sizes() -> None:
    with pytest.raises(RequestError, match="the mask is 30x40 and the image 60x40"):
        inpainting(given=mask(size=(30, 40)))


# ---- images


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_an_image_of_any_mode_is_edited_in_its_colours(mode: str) -> None:
    image = PICTURE.convert(mode)
    assert np.array_equal(inpainting(image, mask()).pixels, np.asarray(image.convert("RGB")))


def test_16_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 40 * 60).reshape(40, 60).astype(np.uint16)
    pixels = inpainting(Image.fromarray(values), mask()).pixels
    assert np.array_equal(pixels[..., 0], (values / 257).round())


def test_a_photo_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    PICTURE.save(tmp_path / "turned.png", exif=exif)
    canvas = inpainting(tmp_path / "turned.png", mask((0, 0, 9, 9), (40, 60)))
    assert np.array_equal(canvas.pixels, np.rot90(PIXELS, -1))


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(png(PICTURE)[:300])
    for name, said in (
        ("no.png", "not a readable image"),
        ("none.png", "No such file"),
        ("cut.png", "cannot read"),
        (".", "image"),
    ):
        with pytest.raises(DataError, match=said):
            inpainting(tmp_path / name, mask())
    with pytest.raises(DataError, match="mask"):
        inpainting(PICTURE, tmp_path / "no.png")


def png(image: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(RequestError, match="smaller than the image"):
        outpainting(size=(50, 50))
    with pytest.raises(RequestError, match="give a larger one"):
        outpainting(size=(60, 40))
    with pytest.raises(RequestError, match="at most 8192"):
        outpainting(left=8190)
    with pytest.raises(DataError, match="the image is 8193x1,"):
        inpainting(Image.new("RGB", (8193, 1)), mask())


# ---- the outpainting canvas


def test_margins_make_the_canvas() -> None:
    canvas = outpainting(left=3, right=50, bottom=7)
    assert (canvas.size, canvas.origin) == ((113, 47), (3, 0, 63, 40))
    assert np.array_equal(canvas.pixels[:40, 3:63], PIXELS)
    assert (canvas.known == KEEP).sum() == 40 * 60


def test_a_prompt_for_a_side_where_nothing_is_added_is_refused() -> None:
    outpainting(left=9, left_prompt="a cat")
    for fields in ({"left": 9}, {"size": (80, 40), "anchor": "right"}):
        with pytest.raises(RequestError, match="right_prompt is given, but there is no margin on that side"):
            outpainting(**fields, right_prompt="a cat")


@pytest.mark.parametrize("anchor", ANCHORS)
def test_an_anchor_says_where_the_image_goes(anchor: str) -> None:
    left, top, _, _ = outpainting(size=(101, 81), anchor=anchor).origin
    assert left == (0 if "left" in anchor else 41 if "right" in anchor else 20)
    assert top == (0 if "top" in anchor else 41 if "bottom" in anchor else 20)


def test_which_side_a_window_is_beyond() -> None:
    canvas = outpainting(left=60, right=60, top=60, bottom=60)
    assert canvas.side_of(Box(0, 60, 40)) == "left"
    assert canvas.side_of(Box(140, 60, 40)) == "right"
    assert canvas.side_of(Box(70, 0, 40)) == "top"
    assert canvas.side_of(Box(70, 120, 40)) == "bottom"
    assert canvas.side_of(Box(70, 60, 40)) is None


def test_a_narrow_strip_is_beyond_its_side_though_a_window_shows_more_of_the_original() -> None:
    canvas = outpainting(left=3, right=8, top=2)
    assert canvas.side_of(Box(0, 0, 40)) == "left" and canvas.side_of(Box(31, 0, 40)) == "right"
    assert canvas.side_of(Box(12, 0, 40)) == "top"


# ---- what is seen and pasted


def test_pasting_touches_only_what_is_free() -> None:
    dark = PIXELS // 8
    canvas = inpainting(Image.fromarray(dark), mask())
    canvas.paste(Box(5, 0, 30), Image.new("RGB", (64, 64), (251, 252, 253)))  # so far off that nothing is matched
    assert np.array_equal(canvas.pixels[~FREE], dark[~FREE])
    assert (canvas.pixels[FREE] == (251, 252, 253)).all()
    assert (canvas.known == KEEP).all()


def test_a_crop_is_what_the_model_sees() -> None:
    canvas = inpainting(given=mask())
    image, known = canvas.crop_known(Box(0, 0, 40), 40)
    assert np.array_equal(((image.permute(1, 2, 0).numpy() + 1) * 127.5).round(), PIXELS[:, :40])
    assert np.array_equal(known[0].numpy() == 0, FREE[:, :40])
    image, known = canvas.crop_known(Box(0, 0, 40), 16)
    assert (image.shape, known.shape) == ((3, 16, 16), (1, 16, 16))


def test_what_is_clear_is_seen_as_white_and_kept_as_it_is() -> None:
    clear = Image.fromarray(np.dstack([PIXELS, np.full((40, 60), 255, np.uint8)]))
    clear.paste((9, 9, 9, 0), (0, 0, 40, 40))
    canvas = outpainting(image=clear, right=20)
    assert (canvas.pixels[:, :40] == 9).all()
    for seen in (
        canvas.crop_known(Box(0, 0, 40), 40)[0],
        canvas.crop(Box(0, 0, 40), 40),
        canvas.copy_opaque().crop_known(Box(0, 0, 40), 40)[0],
    ):
        assert (seen == 1).all()
    canvas.paste(Box(40, 0, 40), Image.new("RGB", (40, 40), "red"))
    assert (np.asarray(canvas.image())[:, :40] == (9, 9, 9, 0)).all()


def test_what_is_blended_with_what_is_clear_is_blended_with_white() -> None:
    clear = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    canvas = inpainting(clear, Image.new("L", (60, 40), 128))
    canvas.paste(Box(0, 0, 60), Image.new("RGB", (60, 60), "white"))
    assert (np.asarray(canvas.image()) == 255).all()


def test_what_is_kept_in_part_is_drawn_anew() -> None:
    image, known = inpainting(given=mask().point(lambda value: value // 2)).crop_known(Box(0, 0, 40), 40)
    assert np.array_equal(known[0].numpy() == 0, FREE[:, :40])


def test_a_crop_that_reaches_out_of_the_canvas_finds_nothing_known_there() -> None:
    canvas = inpainting(given=mask())
    image, known = canvas.crop_known(Box(-6, -10, 60), 60)
    there, inside = known[0, 10:50, 6:] == 1, (slice(10, 50), slice(6, 60))
    assert known.shape == (1, 60, 60) and known.sum() == known[0][inside].sum()
    assert np.array_equal(there.numpy(), ~FREE[:, :54])
    seen = ((image[:, *inside].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.array_equal(seen, PIXELS[:, :54])


def test_pasting_what_reaches_out_of_the_canvas() -> None:
    dark, drawn = PIXELS // 8, Image.fromarray(np.full((60, 60, 3), 240, np.uint8))
    drawn.paste((251, 252, 253), (6, 10, 60, 50))
    canvas = inpainting(Image.fromarray(dark), mask())
    canvas.paste(Box(-6, -10, 60), drawn)
    assert (canvas.pixels[FREE] == (251, 252, 253)).all() and np.array_equal(canvas.pixels[~FREE], dark[~FREE])


def test_pasting_some_parts_leaves_the_rest_free() -> None:
    canvas = inpainting(Image.fromarray(PIXELS // 8), mask())
    parts = [Box(0, 0, 15), Box(25, 10, 40)]
    canvas.paste(Box(0, 0, 40), Image.new("RGB", (40, 40), (250, 250, 250)), parts)
    wanted = np.zeros_like(FREE)
    wanted[:15, :15] = wanted[10:, 25:] = True
    assert np.array_equal(canvas.known < KEEP, FREE & ~wanted)
    assert ((canvas.pixels == 250).all(-1) == FREE & wanted).all()


def test_a_sketch_is_not_the_canvas() -> None:
    canvas = inpainting(given=mask())
    sketch = canvas.copy_opaque()
    sketch.paste(Box(5, 0, 30), Image.new("RGB", (64, 64)))
    assert (sketch.known == KEEP).all()
    assert np.array_equal(canvas.pixels, PIXELS) and np.array_equal(canvas.known < KEEP, FREE)


def test_all_of_a_window_whose_edge_goes_on_beyond_the_canvas() -> None:
    canvas = inpainting(given=mask())
    seen = ((canvas.crop(Box(-6, -10, 60), 60).permute(1, 2, 0).numpy() + 1) * 127.5).round()
    assert np.array_equal(seen[10:50, 6:], PIXELS[:, :54])
    assert (seen[:10, 6:] == PIXELS[0, :54]).all() and (seen[50:, 6:] == PIXELS[-1, :54]).all()
    assert (seen[10:50, :6] == PIXELS[:, :1]).all()
    assert canvas.crop(Box(0, 0, 40), 16).shape == (3, 16, 16)


def test_what_some_windows_cover() -> None:
    covered = inpainting(given=mask()).covered([Box(-6, -10, 20), Box(50, 30, 40)])
    assert covered.sum() == 14 * 10 + 10 * 10 and covered[:10, :14].all() and covered[30:, 50:].all()


def test_a_window_that_reaches_out_of_the_canvas_is_beyond_the_side_that_it_is_beyond_on_it() -> None:
    canvas = open_canvas(Request(mode="outpaint", prompt="x", image=Image.new("RGB", (60, 20)), right=60))
    assert canvas.side_of(Box(40, 0, 64)) == "right"
