"""Edits with a second upsampler: large windows in full detail, and kept pixels byte for byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers import box_mask, difference, kept, noise_image, pixels
from unclip.images.result import Result
from unclip.modes.inpainting.canvas import Box
from unclip.modes.inpainting.plan import image_size, plan_edit, window_size
from unclip.modes.inpainting.prepare import open_canvas
from unclip.modes.resolve import resolve
from unclip.pipeline import Unclip
from unclip.requests.request import Request

STAGE = "second upsampler"
QUICK: dict[str, Any] = {"seed": 1, "steps": 2, "prior_steps": 1, "upsampler_steps": 1}


def windows(pipe: Unclip, request: Request) -> list[list[Box]]:
    """The boxes of the windows of each region of an edit."""
    edit = plan_edit(pipe.model, resolve(pipe.model, request), open_canvas(request))
    return [[window.box for window in region] for region in edit.regions]


def inpainting(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Request:
    mask = Image.new("L", size, 0)
    for box in boxes:
        mask.paste(255, box)
    return Request(mode="inpaint", prompt="a cat", image=noise_image(*size), mask=mask, **QUICK)


@pytest.mark.parametrize("size", [(128, 128), (150, 130), (300, 200)])
def test_inpainting_keeps_pixels_in_the_file(tiny_second: Unclip, size: tuple[int, int], tmp_path: Path) -> None:
    image, mask = noise_image(*size), box_mask(size, (20, 10, size[0] - 30, 100))
    [result] = tiny_second.inpaint(image, mask, "a cat", **QUICK)
    assert STAGE in result.timings and result.image.size == size
    with Image.open(result.save(tmp_path / "edited.png")) as written:
        assert kept(result, image, mask) and np.array_equal(pixels(written), pixels(result))
    masked = np.asarray(mask) > 0
    assert (pixels(result)[masked] != pixels(image)[masked]).any(-1).mean() > 0.9


@pytest.mark.parametrize("fields", [{"size": 128, "anchor": "left"}, {"right": 64}, {"left": 128, "top": 30}])
def test_outpainting_keeps_the_original_in_the_file(tiny_second: Unclip, fields: dict, tmp_path: Path) -> None:
    image = noise_image(64, 128) if "anchor" in fields else noise_image(128, 128)
    [result] = tiny_second.outpaint(image, "a dog", **fields, **QUICK)
    left, top = fields.get("left", 0), fields.get("top", 0)
    with Image.open(result.save(tmp_path / "edited.png")) as written:
        original = written.crop((left, top, left + image.width, top + image.height))
    assert np.array_equal(pixels(original), pixels(image)) and STAGE in result.timings


def test_a_small_region_is_generated_at_the_default_size(tiny: Unclip, tiny_second: Unclip) -> None:
    request = inpainting((128, 128), (60, 60, 75, 70))
    assert windows(tiny_second, request) == windows(tiny, request) == [[Box(51, 49, 32)]]
    results: list[Result] = [pipe.generate(request)[0] for pipe in (tiny, tiny_second)]
    assert difference(*results) == 0 and STAGE not in results[1].timings


def test_a_large_region_gets_one_window_in_full_detail(tiny: Unclip, tiny_second: Unclip) -> None:
    request = inpainting((128, 128), (10, 10, 90, 100))
    assert windows(tiny_second, request) == [[Box(0, 0, 128)]]
    assert len(windows(tiny, request)[0]) > 1


def test_distant_spots_stay_separate(tiny_second: Unclip) -> None:
    found = windows(tiny_second, inpainting((128, 128), (0, 0, 9, 9), (110, 110, 120, 120)))
    assert [box.side for [box] in found] == [32, 32]


def test_margins_get_windows_as_large_as_the_canvas_allows(tiny: Unclip, tiny_second: Unclip) -> None:
    request = Request(mode="outpaint", prompt="a cat", image=noise_image(128, 128), right=64, **QUICK)
    assert windows(tiny_second, request) == [[Box(64, 0, 128)]]
    assert {box.side for box in windows(tiny, request)[0]} == {32}
    huge = Request(mode="outpaint", prompt="a cat", image=noise_image(300, 300), right=64, **QUICK)
    assert {box.side for box in windows(tiny_second, huge)[0]} == {128}  # no larger than the model's images


def test_the_size_of_windows_and_of_their_images(tiny: Unclip, tiny_second: Unclip) -> None:
    for size, side in (((32, 500), 32), ((20, 20), 32), ((100, 60), 60), ((128, 128), 128), ((400, 300), 128)):
        canvas = open_canvas(inpainting(size, (0, 0, *size)))
        assert window_size(tiny_second.model, canvas) == side and window_size(tiny.model, canvas) == 32
    for side, made in ((8, 32), (32, 32), (33, 128), (128, 128), (300, 128)):
        assert image_size(tiny_second.model, Box(0, 0, side)) == (made, made)
        assert image_size(tiny.model, Box(0, 0, side)) == (32, 32)


def test_an_edit_alone_and_in_a_batch_of_several_sizes(tiny_second: Unclip) -> None:
    requests = [
        inpainting((128, 128), (10, 10, 90, 100)),
        inpainting((128, 128), (60, 60, 75, 70)),
        inpainting((40, 40), (3, 3, 30, 30)),
    ]
    for request, together in zip(requests, tiny_second.generate(requests), strict=True):
        assert difference(tiny_second.generate(request)[0], together) <= 1
