"""The windows and context views of a canvas, and their order."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers import box_mask, noise_image
from unclip.modes.inpainting.canvas import KEEP, Box, Canvas
from unclip.modes.inpainting.prepare import open_canvas
from unclip.modes.inpainting.regions import masked_regions
from unclip.modes.inpainting.windows import one_window_suffices, place_context_views, place_windows
from unclip.requests.request import Request

CELLS = 16


def inpainting(image: Image.Image, mask: Image.Image) -> Canvas:
    return open_canvas(Request(mode="inpaint", prompt="x", image=image, mask=mask))


def outpainting(image: Image.Image, **fields) -> Canvas:
    return open_canvas(Request(mode="outpaint", prompt="x", image=image, **fields))


def cover(canvas: Canvas, size: int) -> list[Box]:
    """The windows, checked to cover the masked region within the canvas."""
    plan, masked = place_windows(canvas, size, CELLS), canvas.known < KEEP
    for box in plan:
        for start, length in zip((box.left, box.top), canvas.size, strict=True):
            if length < box.side:
                assert start == (length - box.side) // 2  # in the middle of the window
            else:
                assert start >= 0 and start + box.side - length < max(1, box.side / CELLS)
        assert masked[box.slices].any()  # none is superfluous
        masked[box.slices] = False
    assert not masked.any()
    return plan


def test_one_window_contains_a_small_region_and_its_context() -> None:
    big = Image.new("RGB", (1000, 700))
    [box] = cover(inpainting(big, box_mask(big.size, (500, 300, 540, 330))), 256)
    assert box == Box(520 - 128, 315 - 128, 256)  # the model's size, around the region
    [box] = cover(inpainting(big, box_mask(big.size, (0, 300, 300, 500))), 256)
    assert box.side == 450  # one and a half times the region, shrunk to the model's size
    assert box.left == 0


def test_overlapping_windows_cover_a_large_region_from_its_edge_inwards() -> None:
    big = Image.new("RGB", (1000, 900))
    canvas = inpainting(big, box_mask(big.size, (100, 100, 900, 800)))
    plan = cover(canvas, 256)
    assert {box.side for box in plan} == {256}
    known = canvas.known.copy()
    for box in plan:
        assert (known[box.slices] == KEEP).mean() >= 0.2  # each contains known pixels
        known[box.slices] = KEEP


@pytest.mark.parametrize("margins", [{"right": 256}, {"left": 100, "top": 30}, {"bottom": 1000}, {"right": 1}])
def test_outpainting_moves_outwards_in_windows_of_the_models_size(margins: dict[str, int]) -> None:
    image = Image.new("RGB", (256, 256))
    canvas = open_canvas(Request(mode="outpaint", prompt="x", image=image, **margins))
    plan = cover(canvas, 256)
    assert {box.side for box in plan} == {256}
    known = canvas.known.copy()
    for box in plan:
        assert (known[box.slices] == KEEP).mean() >= 0.2
        known[box.slices] = KEEP
    if margins == {"right": 256}:
        assert plan == [Box(128, 0, 256), Box(256, 0, 256)]


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (17, 31)])
def test_odd_canvases_are_covered(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    cover(inpainting(image, Image.new("L", size, 255)), 32)
    cover(open_canvas(Request(mode="outpaint", prompt="x", image=image, left=5, bottom=70)), 32)


def test_a_mask_that_keeps_everything_has_no_window() -> None:
    assert place_windows(inpainting(noise_image(60, 40), Image.new("L", (60, 40), 0)), 32, CELLS) == []


@pytest.mark.parametrize("cells", [16, 64, 5])
@pytest.mark.parametrize("margins", [{"left": 77}, {"top": 300, "right": 90}, {"size": (101, 83), "anchor": "center"}])
def test_the_windows_of_a_canvas_lie_on_a_grid(margins: dict, cells: int) -> None:
    canvas = outpainting(noise_image(90, 70), **margins)
    plan = place_windows(canvas, 256, cells)
    [side] = {box.side for box in plan}
    assert side == min(256, max(canvas.size))
    for axis in ("left", "top"):
        starts = [getattr(box, axis) for box in plan]
        for start in starts:
            steps = (start - starts[0]) * cells / side
            assert abs(steps - round(steps)) * side / cells <= 1  # to the pixel


# ---- thin canvases


@pytest.mark.parametrize("size", [(600, 12), (12, 600), (256, 2), (600, 1), (1200, 16), (300, 100)])
def test_a_thin_canvas_has_no_more_windows_than_one_of_the_models_size(size: tuple[int, int]) -> None:
    thin, wide = (
        inpainting(Image.new("RGB", s), Image.new("L", s, 255)) for s in (size, (max(256, size[0]), max(256, size[1])))
    )
    plan = cover(thin, 256)
    assert len(plan) <= len(cover(wide, 256)) and {box.side for box in plan} == {256}
    assert len(context_views(thin)) <= max(1, len(context_views(wide)))


def test_one_window_covers_a_small_canvas_of_any_shape() -> None:
    for size in ((60, 40), (256, 2), (17, 31)):
        canvas = inpainting(Image.new("RGB", size), Image.new("L", size, 255))
        [box] = place_windows(canvas, 256, CELLS)
        assert box.side == max(size) and canvas.covered([box]).all()
        assert one_window_suffices(canvas, [box])


def test_windows_around_a_spot_of_a_thin_canvas_extend_past_it() -> None:
    canvas = inpainting(Image.new("RGB", (600, 12)), box_mask((600, 12), (300, 2, 310, 8)))
    assert place_windows(canvas, 256, CELLS) == [Box(305 - 128, -122, 256)]


@pytest.mark.parametrize("margins", [{"right": 64}, {"bottom": 64}, {"left": 9, "top": 300}])
def test_outpainting_a_thin_image_needs_few_windows(margins: dict[str, int]) -> None:
    canvas = outpainting(Image.new("RGB", (1, 300)), **margins)
    plan = cover(canvas, 256)
    assert len(plan) <= 4 and {box.side for box in plan} == {256}
    views = place_context_views(canvas, plan, 256)
    assert len(views) <= 2 and canvas.covered(views)[canvas.masked].all()


def test_separate_sides_of_a_small_or_thin_canvas_have_windows_of_their_own() -> None:
    for size in ((16, 16), (300, 1)):
        canvas = outpainting(noise_image(*size), left=40, right=40)
        plan = place_windows(canvas, 256, CELLS, separate_sides=True)
        assert {"left", "right"} <= {canvas.side_of(box) for box in plan} and len(plan) <= 3


# ---- regions


def spots(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Canvas:
    mask = Image.new("L", size, 0)
    for box in boxes:
        mask.paste(255, box)
    return inpainting(noise_image(*size), mask)


def boxes_of(canvas: Canvas, size: int) -> list[list[Box]]:
    """The windows of each masked region, checked to contain nothing of another region."""
    found, masked = masked_regions(canvas, size), canvas.known < KEEP
    plans = [place_windows(canvas, size, CELLS, part) for part in found]
    parts = [masked & part.mask(masked.shape) for part in found]
    assert np.array_equal(sum(part.astype(int) for part in parts), masked)  # everything, and nothing twice
    for i, plan in enumerate(plans):
        covered = canvas.covered(plan)
        assert (covered & parts[i]).sum() == parts[i].sum()
        assert not any((covered & other).any() for k, other in enumerate(parts) if k != i)
    return plans


def test_distant_spots_are_separate_regions_at_full_resolution() -> None:
    far = spots((2000, 900), (100, 100, 140, 130), (1500, 700, 1501, 701), (1600, 20, 1900, 120))
    assert boxes_of(far, 256) == [[Box(1525, 0, 450)], [Box(0, 0, 256)], [Box(1500 - 128, 700 - 128, 256)]]


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        (((100, 100, 110, 110), (300, 100, 310, 110)), 1),  # one window contains both
        (((100, 100, 110, 110), (700, 100, 710, 110)), 2),
        (((100, 100, 110, 110), (340, 100, 350, 110), (580, 100, 590, 110), (820, 100, 830, 110)), 1),  # a chain
        (((0, 0, 1200, 10), (0, 0, 10, 900), (600, 500, 610, 510)), 1),  # within the bounds of another
        (((0, 0, 700, 300), (900, 700, 910, 710)), 2),  # a large one, in several windows, and a small one
        (((0, 0, 1200, 900),), 1),
    ],
)
def test_near_spots_are_one_region(boxes: tuple, count: int) -> None:
    assert len(boxes_of(spots((1200, 900), *boxes), 256)) == count


def test_one_window_or_the_margins_are_one_region() -> None:
    assert len(masked_regions(spots((400, 400), (0, 0, 10, 10), (350, 350, 360, 360)), 256)) == 1
    assert len(masked_regions(outpainting(noise_image(256, 256), left=900, right=900), 256)) == 1
    assert masked_regions(spots((400, 400)), 256) == []


def test_many_specks_are_one_region() -> None:
    specks = [(x, y, x + 1, y + 1) for x in range(0, 1600, 50) for y in range(0, 1200, 50)]
    assert len(boxes_of(spots((1600, 1200), *specks), 256)) == 1


# ---- context views


def context_views(canvas: Canvas) -> list[Box]:
    return place_context_views(canvas, place_windows(canvas, 256, CELLS), 256)


@pytest.mark.parametrize(
    "margins", [{"right": 256}, {"right": 128}, {"left": 60, "right": 70, "bottom": 20}, {"bottom": 900}, {"top": 700}]
)
def test_context_views_cover_the_masked_pixels(margins: dict[str, int]) -> None:
    canvas = outpainting(noise_image(256, 256), **margins)
    assert not one_window_suffices(canvas, place_windows(canvas, 256, CELLS))
    plan, masked = context_views(canvas), canvas.known < KEEP
    width, height = canvas.size
    assert {box.side for box in plan} == {min(512, max(width, height))}
    for box in plan:
        assert masked[box.slices].any()
        masked[box.slices] = False
    assert not masked.any()
    if max(width, height) <= 512:  # one, with the whole canvas in it, in the middle
        [box] = plan
        assert box == Box((width - box.side) // 2, (height - box.side) // 2, box.side)


def test_the_first_context_view_contains_the_original() -> None:
    for margins in ({"right": 1500}, {"left": 1500}, {"bottom": 1500}, {"top": 1500}):
        canvas = outpainting(noise_image(256, 256), **margins)
        first = context_views(canvas)[0]
        left, top, right, bottom = canvas.origin
        assert first.left <= left and right <= first.left + first.side
        assert first.top <= top and bottom <= first.top + first.side


def test_a_context_view_of_some_windows_contains_them_and_the_original_only() -> None:
    canvas = outpainting(noise_image(256, 256), left=128, right=128)
    [left, right] = sorted(place_windows(canvas, 256, CELLS), key=lambda box: box.left)
    assert place_context_views(canvas, [left], 256) == [Box(0, -64, 384)]
    assert place_context_views(canvas, [right], 256) == [Box(128, -64, 384)]


@pytest.mark.parametrize("fields", [{"size": (512, 512)}, {"size": (400, 400), "anchor": "top-left"}, {"right": 76}])
def test_one_window_covers_a_small_square_canvas(fields: dict) -> None:
    canvas = outpainting(noise_image(180, 256), **fields)
    assert place_windows(canvas, 256, CELLS) == [Box(0, 0, canvas.size[0])] and len(masked_regions(canvas, 256)) == 1


def test_one_window_suffices_for_a_small_region_or_canvas() -> None:
    big = noise_image(1000, 700)
    for canvas in (
        inpainting(big, box_mask(big.size, (500, 300, 540, 330))),
        outpainting(noise_image(100, 120), size=(256, 256)),
    ):
        assert one_window_suffices(canvas, place_windows(canvas, 256, CELLS))


def test_a_large_region_has_context_views() -> None:
    big = noise_image(1000, 900)
    canvas = inpainting(big, box_mask(big.size, (100, 100, 900, 800)))
    assert not one_window_suffices(canvas, place_windows(canvas, 256, CELLS))
    plan = context_views(canvas)
    assert len(plan) > 1 and {box.side for box in plan} == {512}
    assert all(box.left >= 0 and box.left + 512 <= 1000 and box.top >= 0 and box.top + 512 <= 900 for box in plan)
