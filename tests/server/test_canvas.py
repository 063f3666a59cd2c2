"""Images on the canvas: generated, masked, extended, varied, opened, undone, kept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.helpers import noise_image
from tests.server.calls import png
from tests.server.canvas_page import expect, mask_of, needs_browser, opened, pixels
from tests.server.conftest import served
from unclip.images import metadata

pytestmark = needs_browser


def test_candidates_are_browsed_and_accepted_by_keyboard_and_downloaded_with_their_record(canvas, tmp_path):
    canvas.press("p")
    canvas.page.keyboard.type("a cat")
    canvas.set(seed=7)
    canvas.field("Prompt").focus()
    canvas.press("Enter")
    canvas.page.wait_for_selector("#generate:not(.stops)")
    canvas.says("4 images are ready")
    files = canvas.server_files()
    assert len(set(files)) == 4
    canvas.press("ArrowRight", "ArrowRight")
    canvas.says("3 of 4 · seed 9")
    canvas.press("ArrowLeft")
    canvas.says("2 of 4 · seed 8")
    canvas.accept()
    path = canvas.download(tmp_path)
    assert path.read_bytes() in files
    record = metadata.read(path)
    assert (record["seed"], record["request"]["prompt"]) == (8, "a cat")


def test_candidates_are_discarded_and_stay_in_the_history(canvas):
    canvas.generate("generations", 2, prompt="a cat", seed=3)
    canvas.press("Escape")
    canvas.says("Discarded")
    expect(canvas.page.locator("#staging")).to_be_hidden()
    expect(canvas.button("Download")).to_be_disabled()
    canvas.page.locator("#entries .restore").click()
    expect(canvas.page.locator("#candidate-text")).to_contain_text("1 of 2")
    canvas.accept()
    expect(canvas.button("Download")).to_be_enabled()


def test_a_painted_mask_is_filled_and_all_other_pixels_stay(canvas, tmp_path):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    before = pixels(canvas.download(tmp_path))
    canvas.press("b", *"[[[[[")
    canvas.drag((0.3, 0.3), (0.6, 0.4), (0.5, 0.6))
    expect(canvas.page.get_by_role("radio", name="Fill")).to_be_checked()
    response = canvas.generate("edits", prompt="a red dog", seed=2)
    painted = mask_of(response)
    assert 10 < painted.sum() < painted.size / 2
    canvas.accept()
    path = canvas.download(tmp_path)
    after = pixels(path)
    assert (after[~painted] == before[~painted]).all()
    assert (after[painted] != before[painted]).any()
    assert path.read_bytes() in canvas.server_files()
    assert metadata.read(path)["request"]["prompt"] == "a red dog"


def test_eraser_lasso_and_inversion_shape_the_mask(canvas):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    canvas.press("m", "e")
    canvas.drag((0.5, -0.2), (0.5, 1.2))
    canvas.press("l")
    canvas.drag((0.45, 0.45), (0.55, 0.45), (0.55, 0.55), (0.45, 0.55))
    painted = mask_of(canvas.generate("edits", prompt="a dog"))
    assert painted[16, 16] and not painted[2, 16] and not painted[30, 16]
    canvas.press("Escape", "i")
    inverted = mask_of(canvas.generate("edits"))
    assert (inverted == ~painted).mean() > 0.99  # edges are rounded to whole pixels after the inversion


def test_a_mask_is_painted_by_keyboard(canvas):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    canvas.press("b", "[")
    canvas.page.locator("#view").focus()
    canvas.press("ArrowUp", "Space", "ArrowRight", "Space")
    canvas.says("Stroke ended")
    assert mask_of(canvas.generate("edits")).any()


def test_moving_the_frame_over_the_edge_extends_the_image(canvas, tmp_path):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    before = pixels(canvas.download(tmp_path))
    canvas.drag((0.5, 0.5), (0.0, 0.25))  # half of its width to the left, a quarter of its height up
    canvas.says("Frame 32 by 32 at -16, -8")
    expect(canvas.page.get_by_role("radio", name="Fill")).to_be_checked()
    response = canvas.generate("edits", prompt="a dog", seed=2)
    body = response.request.post_data_json
    assert body["frame"] == [-16, -8, 32, 32]
    assert {name for name in body if name.endswith("prompt")} == {"prompt", "left_prompt", "top_prompt"}
    canvas.accept()
    path = canvas.download(tmp_path)
    after = pixels(path)
    assert after.shape == (40, 48, 4)  # the corners that no frame has covered are transparent
    assert (after[8:, 16:, :3] == before).all() and (after[8:, 16:, 3] == 255).all()
    assert (after[:32, :32, 3] == 255).all() and (after[:8, 32:, 3] == 0).all()
    parts = metadata.read(path)["canvas"]
    assert [(part["left"], part["top"], part["record"]["seed"]) for part in parts] == [(16, 8, 1), (0, 0, 2)]
    canvas.press("Control+z")
    canvas.says("Undone: accept a candidate")
    assert (pixels(canvas.download(tmp_path)) == before).all()
    canvas.press("Control+Shift+z")
    canvas.says("Done again")
    assert (pixels(canvas.download(tmp_path)) == after).all()
    canvas.drag((0.5, 0.5), (1.25, 0.5))  # over the gap at the top right, which is no margin of a rectangle
    canvas.generate("edits", prompt="a dog", seed=3)
    canvas.press("Escape", "Control+z", "Control+z")
    expect(canvas.button("Download")).to_be_disabled()


def test_the_bundled_model_extends_an_image(browser, tmp_path):
    from unclip.pipeline import Unclip

    with served(Unclip.from_pretrained("stickers", device="cpu", dtype="float32")) as url:
        for canvas in opened(browser, url):
            canvas.page.set_default_timeout(120_000)
            canvas.generate("generations", prompt="a penguin on a pink background", seed=7)
            canvas.accept()
            before = pixels(canvas.download(tmp_path))
            canvas.page.locator("#frame").focus()
            canvas.press("Shift+ArrowRight", "Shift+ArrowRight")
            canvas.generate("edits", prompt="a fox on a pink background", seed=7)
            canvas.accept()
            after = pixels(canvas.download(tmp_path))
            assert after.shape == (256, 384, 3) and (after[:, :256] == before).all()
            assert after[:, 256:].std(axis=(0, 1)).max() > 20  # something is there, beside the background


def test_the_frame_is_moved_and_resized_by_keyboard_handles_and_numbers(canvas):
    frame = canvas.page.locator("#frame")
    frame.focus()
    canvas.press("ArrowRight", "Shift+ArrowDown", "Alt+ArrowRight")
    canvas.says("Frame 40 by 32 at 8, 64")
    canvas.press("0")
    canvas.drag((1, 1), (2, 3))
    canvas.says("Frame 80 by 96 at 8, 64")
    canvas.page.get_by_text("Frame", exact=True).click()
    canvas.field("Left").fill("-5")
    canvas.field("Left").press("Tab")
    canvas.says("Frame 80 by 96 at -5, 64")
    assert frame.get_attribute("aria-label") == "Frame, 80 by 96 at -5, 64"


def test_variations_and_text_diffs_change_the_selection(canvas, tmp_path):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    before = pixels(canvas.download(tmp_path))
    canvas.choose("Vary")
    canvas.generate("variations", 2, seed=5, strength=0.5)
    canvas.press("Escape")
    canvas.choose("Text diff")
    canvas.field("What it shows now").fill("a cat")
    canvas.field("What it should show").fill("a dog")
    response = canvas.generate("edits", seed=6)
    body = response.request.post_data_json
    assert (body["mode"], body["from_prompt"], body["theta"]) == ("edit", "a cat", 0.5)
    canvas.accept()
    assert (pixels(canvas.download(tmp_path)) != before).any()


def test_an_image_that_is_opened_keeps_its_pixels(canvas, tmp_path):
    image = noise_image(60, 44)
    source = tmp_path / "photo.png"
    source.write_bytes(png(image))
    canvas.page.locator("#file").set_input_files(source)
    canvas.says("Accepted")
    assert canvas.download(tmp_path).read_bytes() == source.read_bytes()
    canvas.press("b")
    canvas.drag((0.8, 0.8), (0.9, 0.9))
    painted = mask_of(canvas.generate("edits", prompt="a dog"))
    assert painted.shape == (44, 60)
    canvas.accept()
    after = pixels(canvas.download(tmp_path))
    assert (after[~painted] == np.asarray(image)[~painted]).all()


def test_a_second_image_is_placed_by_moving_the_frame(canvas, tmp_path):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    before = pixels(canvas.download(tmp_path))
    image = noise_image(16, 16)
    source = tmp_path / "part.png"
    source.write_bytes(png(image))
    canvas.page.locator("#file").set_input_files(source)
    canvas.says("Move the frame to place the image")
    canvas.page.locator("#frame").focus()
    canvas.press("ArrowRight", "ArrowDown", "Enter")
    canvas.says("Accepted")
    expected = before.copy()
    expected[8:24, 8:24] = np.asarray(image)
    assert (pixels(canvas.download(tmp_path)) == expected).all()


def test_what_a_transparent_image_covers_stays_visible(canvas, tmp_path):
    canvas.generate("generations", prompt="a cat", seed=1)
    canvas.accept()
    before = pixels(canvas.download(tmp_path))
    glass = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    glass.putpixel((3, 4), (9, 8, 7, 255))
    source = tmp_path / "glass.png"
    source.write_bytes(png(glass))
    canvas.page.locator("#file").set_input_files(source)
    canvas.says("Move the frame to place the image")
    canvas.page.locator("#frame").focus()
    canvas.accept()
    expected = before.copy()
    expected[4, 3] = (9, 8, 7)
    assert (pixels(canvas.download(tmp_path)) == expected).all()


def test_a_reload_loses_nothing_even_if_the_server_has_forgotten_all_files(browser, tiny, tmp_path):
    with served(tiny, keep_time=0.5) as url:
        for canvas in opened(browser, url):
            canvas.generate("generations", prompt="a cat", seed=1)
            canvas.accept()
            before = canvas.download(tmp_path).read_bytes()
            canvas.press("b")
            canvas.drag((0.4, 0.4), (0.6, 0.6))
            canvas.generate("edits", 2, prompt="a dog", seed=4)
            canvas.press("ArrowRight")
            canvas.page.wait_for_timeout(900)  # longer than files are kept
            canvas.page.reload()
            canvas.page.wait_for_selector("body[data-ready]")
            expect(canvas.field("Prompt")).to_have_value("a dog")
            expect(canvas.page.locator("#candidate-text")).to_contain_text("of 2")
            expect(canvas.page.locator("#entries li")).to_have_count(2)
            assert canvas.download(tmp_path).read_bytes() == before
            canvas.page.get_by_role("button", name="Discard").click()
            response = canvas.generate("edits", seed=4)  # the mask is still there, too
            assert mask_of(response).any()
            canvas.accept()
            canvas.button("Undo").click()
            assert canvas.download(tmp_path).read_bytes() == before


def test_the_history_brings_back_an_image_with_its_prompt_and_seed(canvas, tmp_path):
    canvas.generate("generations", 2, prompt="a cat", seed=1)
    canvas.accept()
    before = canvas.download(tmp_path).read_bytes()
    canvas.button("New").click()
    canvas.generate("generations", prompt="a dog", seed=9)
    canvas.accept()
    canvas.page.locator("#entries .restore").nth(1).click()
    expect(canvas.field("Prompt")).to_have_value("a cat")
    expect(canvas.field("Seed")).to_have_value("1")
    assert canvas.download(tmp_path).read_bytes() == before
    canvas.page.get_by_role("button", name="Choose again from 2 candidates").click()
    canvas.press("ArrowRight")
    canvas.accept()
    assert metadata.read(canvas.download(tmp_path))["seed"] == 2


def test_modes_that_need_an_image_in_the_frame_say_so(canvas, tmp_path):
    hint, fill = canvas.page.locator("#mode-hint"), canvas.page.locator("label", has_text="Fill")
    assert "no image yet" in fill.get_attribute("title")
    source = tmp_path / "photo.png"
    source.write_bytes(png(noise_image(32, 32)))
    canvas.page.locator("#file").set_input_files(source)
    canvas.says("Accepted")
    assert fill.get_attribute("title") == ""
    expect(hint).not_to_contain_text("move the frame")
    canvas.page.locator("#frame").focus()
    canvas.press("Shift+ArrowRight")
    expect(hint).to_contain_text("move the frame over a part of it")
    expect(fill.locator("input")).to_be_disabled()
    canvas.press("Shift+ArrowLeft")
    expect(hint).not_to_contain_text("move the frame")
    expect(fill.locator("input")).to_be_enabled()
