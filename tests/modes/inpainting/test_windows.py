"""How windows are placed on a canvas."""

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


def inpainting(image: Image.Image, given: Image.Image) -> Canvas:
    return open_canvas(Request(mode="inpaint", prompt="x", image=image, mask=given))


def outpainting(image: Image.Image, **fields) -> Canvas:
    return open_canvas(Request(mode="outpaint", prompt="x", image=image, **fields))


def cover(canvas: Canvas, size: int) -> list[Box]:
    """The windows, checked to cover the masked region within the canvas."""
    plan, free = place_windows(canvas, size, CELLS), canvas.known < KEEP
    for box in plan:
        for start, length in zip((box.left, box.top), canvas.size, strict=True):
            assert start >= 0 and start + box.side - length < max(1, box.side / CELLS)
        assert free[box.slices].any()  # none is drawn for nothing
        free[box.slices] = False
    assert not free.any()
    return plan


def test_a_small_region_is_seen_with_its_surroundings_in_one_window() -> None:
    big = Image.new("RGB", (1000, 700))
    [box] = cover(inpainting(big, box_mask(big.size, (500, 300, 540, 330))), 256)
    assert box == Box(520 - 128, 315 - 128, 256)  # the model's size, around the region
    [box] = cover(inpainting(big, box_mask(big.size, (0, 300, 300, 500))), 256)
    assert box.side == 450  # half as much again as the region; shrunk to the model's size
    assert box.left == 0


def test_a_region_larger_than_that_is_cut_into_overlapping_windows_from_its_edge_inwards() -> None:
    big = Image.new("RGB", (1000, 900))
    canvas = inpainting(big, box_mask(big.size, (100, 100, 900, 800)))
    plan = cover(canvas, 256)
    assert {box.side for box in plan} == {256}
    known = canvas.known.copy()
    for box in plan:
        assert (known[box.slices] == KEEP).mean() >= 0.2  # each sees what is already there
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
def test_odd_canvases_are_covered_too(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    cover(inpainting(image, Image.new("L", size, 255)), 32)
    cover(open_canvas(Request(mode="outpaint", prompt="x", image=image, left=5, bottom=70)), 32)


def test_a_mask_that_keeps_everything_leaves_no_window() -> None:
    assert place_windows(inpainting(noise_image(60, 40), Image.new("L", (60, 40), 0)), 32, CELLS) == []


@pytest.mark.parametrize("cells", [16, 64, 5])
@pytest.mark.parametrize("margins", [{"left": 77}, {"top": 300, "right": 90}, {"size": (101, 83), "anchor": "center"}])
def test_windows_of_one_canvas_are_on_one_grid(margins: dict, cells: int) -> None:
    canvas = outpainting(noise_image(90, 70), **margins)
    plan = place_windows(canvas, 256, cells)
    assert {box.side for box in plan} == {min(canvas.size)}
    unit = min(canvas.size) / cells
    for box in plan:
        for start in (box.left, box.top):
            assert abs(start / unit - round(start / unit)) * unit <= 0.5  # to the pixel


# ---- holes


def spots(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Canvas:
    given = Image.new("L", size, 0)
    for box in boxes:
        given.paste(255, box)
    return inpainting(noise_image(*size), given)


def boxes_of(canvas: Canvas, size: int) -> list[list[Box]]:
    """The windows of each hole, after a look at whether they are painted apart."""
    found, free = masked_regions(canvas, size), canvas.known < KEEP
    plans = [place_windows(canvas, size, CELLS, part) for part in found]
    parts = [free & part.mask(free.shape) for part in found]
    assert np.array_equal(sum(part.astype(int) for part in parts), free)  # all of it, each once
    for i, plan in enumerate(plans):
        seen = canvas.covered(plan)
        assert (seen & parts[i]).sum() == parts[i].sum()
        assert not any((seen & other).any() for k, other in enumerate(parts) if k != i)
    return plans


def test_spots_far_apart_are_holes_of_their_own_and_each_is_seen_closely() -> None:
    far = spots((2000, 900), (100, 100, 140, 130), (1500, 700, 1501, 701), (1600, 20, 1900, 120))
    assert boxes_of(far, 256) == [[Box(1525, 0, 450)], [Box(0, 0, 256)], [Box(1500 - 128, 700 - 128, 256)]]


@pytest.mark.parametrize(
    ("boxes", "count"),
    [
        (((100, 100, 110, 110), (300, 100, 310, 110)), 1),  # one window sees both
        (((100, 100, 110, 110), (700, 100, 710, 110)), 2),
        (((100, 100, 110, 110), (340, 100, 350, 110), (580, 100, 590, 110), (820, 100, 830, 110)), 1),  # a chain
        (((0, 0, 1200, 10), (0, 0, 10, 900), (600, 500, 610, 510)), 1),  # within the bounds of another
        (((0, 0, 700, 300), (900, 700, 910, 710)), 2),  # a large one, in several windows, and a small one
        (((0, 0, 1200, 900),), 1),
    ],
)
def test_what_is_near_is_one_hole(boxes: tuple, count: int) -> None:
    assert len(boxes_of(spots((1200, 900), *boxes), 256)) == count


def test_what_is_seen_at_once_is_one_hole_and_so_is_what_is_around_a_picture() -> None:
    assert len(masked_regions(spots((400, 400), (0, 0, 10, 10), (350, 350, 360, 360)), 256)) == 1
    assert len(masked_regions(outpainting(noise_image(256, 256), left=900, right=900), 256)) == 1
    assert masked_regions(spots((400, 400)), 256) == []


def test_many_specks_are_no_more_holes_than_windows() -> None:
    specks = [(x, y, x + 1, y + 1) for x in range(0, 1600, 50) for y in range(0, 1200, 50)]
    assert len(boxes_of(spots((1600, 1200), *specks), 256)) == 1


# ---- views


def seen_whole(canvas: Canvas) -> list[Box]:
    return place_context_views(canvas, place_windows(canvas, 256, CELLS), 256)


@pytest.mark.parametrize(
    "margins", [{"right": 256}, {"right": 128}, {"left": 60, "right": 70, "bottom": 20}, {"bottom": 900}, {"top": 700}]
)
def test_views_are_wider_than_windows_and_cover_what_is_free(margins: dict[str, int]) -> None:
    canvas = outpainting(noise_image(256, 256), **margins)
    assert not one_window_suffices(canvas, place_windows(canvas, 256, CELLS))
    plan, free = seen_whole(canvas), canvas.known < KEEP
    width, height = canvas.size
    assert {box.side for box in plan} == {min(512, max(width, height))}
    for box in plan:
        assert free[box.slices].any()
        free[box.slices] = False
    assert not free.any()
    if max(width, height) <= 512:  # one, with the whole canvas in it, in the middle
        [box] = plan
        assert box == Box((width - box.side) // 2, (height - box.side) // 2, box.side)


def test_the_first_view_has_the_original_in_it() -> None:
    for margins in ({"right": 1500}, {"left": 1500}, {"bottom": 1500}, {"top": 1500}):
        canvas = outpainting(noise_image(256, 256), **margins)
        first = seen_whole(canvas)[0]
        left, top, right, bottom = canvas.origin
        assert first.left <= left and right <= first.left + first.side
        assert first.top <= top and bottom <= first.top + first.side


def test_a_view_of_some_windows_has_nothing_beyond_them_and_the_original_in_it() -> None:
    canvas = outpainting(noise_image(256, 256), left=128, right=128)
    [left, right] = sorted(place_windows(canvas, 256, CELLS), key=lambda box: box.left)
    assert place_context_views(canvas, [left], 256) == [Box(0, -64, 384)]
    assert place_context_views(canvas, [right], 256) == [Box(128, -64, 384)]


@pytest.mark.parametrize("fields", [{"size": (512, 512)}, {"size": (400, 400), "anchor": "top-left"}, {"right": 76}])
def test_a_small_square_canvas_is_seen_at_once(fields: dict) -> None:
    canvas = outpainting(noise_image(180, 256), **fields)
    assert place_windows(canvas, 256, CELLS) == [Box(0, 0, canvas.size[0])] and len(masked_regions(canvas, 256)) == 1


def test_where_one_window_sees_all() -> None:
    big = noise_image(1000, 700)
    for canvas in (
        inpainting(big, box_mask(big.size, (500, 300, 540, 330))),
        outpainting(noise_image(100, 120), size=(256, 256)),
    ):
        assert one_window_suffices(canvas, place_windows(canvas, 256, CELLS))


def test_a_large_region_is_viewed_too() -> None:
    big = noise_image(1000, 900)
    canvas = inpainting(big, box_mask(big.size, (100, 100, 900, 800)))
    assert not one_window_suffices(canvas, place_windows(canvas, 256, CELLS))
    plan = seen_whole(canvas)
    assert len(plan) > 1 and {box.side for box in plan} == {512}
    assert all(box.left >= 0 and box.left + 512 <= 1000 and box.top >= 0 and box.top + 512 <= 900 for box in plan)
