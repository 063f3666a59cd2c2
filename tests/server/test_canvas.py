"""The canvas in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.helpers import noise_image
from tests.server.calls import png
from tests.server.conftest import served
from unclip.images import metadata

pytest.importorskip("playwright", reason="needs playwright, of the extra `test`")
from playwright.sync_api import Browser, Page, Response, expect, sync_playwright  # noqa: E402

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"needs a browser: one of {', '.join(PROGRAMS)}")
TIMEOUT = 20_000  # milliseconds

FILE_IDS = """() => new Promise((resolve) => {
    indexedDB.open("unclip-canvas").onsuccess = ({target}) => {
        const files = target.result.transaction("files").objectStore("files").getAll();
        files.onsuccess = () => (target.result.close(), resolve(files.result.map(({id}) => id)));
    };
})"""
"""The ids of the images that the page holds."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root, as in containers, chromium starts without its sandbox only. The pages are our own.
        with playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"]) as found:
            yield found


class Canvas:
    """A page of the canvas, and what a user does with it. problems: its errors and its requests to other hosts."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.url = url
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("request", lambda request: self._check_host(request.url))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "Failed to load resource" not in text:  # an error of the API is no bug
            self.problems.append(text)

    def _check_host(self, url: str) -> None:
        if not url.startswith((self.url, f"blob:{self.url}", "data:")):
            self.problems.append(url)

    def open(self) -> Canvas:
        self.page.goto(self.url)
        self.page.wait_for_selector("body[data-ready]")
        return self

    def field(self, name: str) -> Any:
        return self.page.get_by_label(name, exact=True)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def says(self, text: str) -> None:
        expect(self.page.get_by_role("status")).to_contain_text(text, timeout=TIMEOUT)

    def set(self, **fields: Any) -> None:
        for name, value in fields.items():
            self.field(name.capitalize()).fill(str(value))

    def choose(self, name: str) -> None:
        """Choose a radio button: the text beside it is what people see and press."""
        self.page.locator(f"label:has-text('{name}')").filter(has=self.page.locator("input[type=radio]")).first.click()

    def generate(self, path: str, images: int = 1, **fields: Any) -> Response:
        """Generate, and wait for all candidates. Returns the answer of the server."""
        self.choose(str(images))
        self.set(**fields)
        with self.page.expect_response(f"**/v1/images/{path}") as found:
            self.button("Generate").click()
        self.page.wait_for_selector("#staging:not([hidden]) #accept:enabled")
        self.page.wait_for_selector("#generate:not(.stops)")
        return found.value

    def accept(self) -> None:
        self.press("Enter")
        self.says("Accepted")

    def download(self, folder: Path) -> Path:
        with self.page.expect_download() as found:
            self.button("Download").click()
        target = folder / f"{len(list(folder.iterdir()))}-{found.value.suggested_filename}"
        found.value.save_as(target)
        return target

    def server_files(self) -> list[bytes]:
        """The files of the session as the server holds them."""
        ids = self.page.evaluate(FILE_IDS)
        return [self.context.request.get(f"{self.url}/v1/files/{id}/content").body() for id in ids]

    def frame(self) -> dict[str, float]:
        found = self.page.locator("#frame").bounding_box()
        assert found is not None
        return found

    def drag(self, *places: tuple[float, float]) -> None:
        """Drag the pointer along places, in fractions of the frame."""
        box = self.frame()
        for number, (x, y) in enumerate(places):
            self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if number == 0:
                self.page.mouse.down()
        self.page.mouse.up()


@pytest.fixture
def canvas(browser: Browser, url: str) -> Iterator[Canvas]:
    yield from opened(browser, url)


def opened(browser: Browser, url: str, **options: Any) -> Iterator[Canvas]:
    """A page in a profile of its own, and the check of its problems afterwards."""
    found = Canvas(browser, url, **options)
    try:
        yield found.open()
        assert found.problems == []
    finally:
        found.context.close()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def mask_of(response: Response) -> np.ndarray:
    """What was painted, as the page sent it."""
    body = response.request.post_data_json
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(body["mask"].partition(",")[2]))).convert("L"))
    assert set(np.unique(found)) <= {0, 255}
    return found == 255


def test_the_page_has_a_strict_policy(url, client):
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for name in ("app.js", "style.css", "icon.svg"):
        answer = client.get(f"/web/{name}")
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"


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


def test_a_reload_loses_nothing_even_if_the_server_has_forgotten_all_files(browser, tiny: Unclip, tmp_path):
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


def test_generating_can_be_stopped(browser, held, tmp_path):
    with served(held) as url:
        for canvas in opened(browser, url):
            canvas.field("Prompt").fill("a cat")
            canvas.button("Generate").click()
            canvas.says("Generating")
            expect(canvas.page.get_by_role("progressbar")).to_be_visible()
            canvas.button("Stop").click()
            canvas.says("Stopped")
            expect(canvas.page.locator("#staging")).to_be_hidden()
            expect(canvas.button("Generate")).to_be_visible()


def test_errors_are_shown_in_words(browser, tiny: Unclip):
    with served(tiny, max_images=2) as url:
        for canvas in opened(browser, url):
            alert = canvas.page.get_by_role("alert")
            canvas.button("Generate").click()
            expect(alert).to_contain_text("Write a prompt first")
            expect(canvas.field("Prompt")).to_be_focused()
            canvas.set(prompt="a cat", steps="many")
            canvas.button("Generate").click()
            expect(alert).to_contain_text("Steps must be a whole number from 1 to 1000")
            expect(canvas.field("Steps")).to_have_attribute("aria-invalid", "true")
            canvas.set(steps="")
            canvas.button("Generate").click()
            expect(alert).to_contain_text("this server generates at most 2 images a call")
            expect(canvas.page.locator("#staging")).to_be_hidden()
            canvas.page.get_by_role("button", name="Close").click()
            expect(alert).to_be_empty()


def test_a_server_that_has_gone_is_named(browser, tiny: Unclip):
    with served(tiny) as url:
        canvas = Canvas(browser, url).open()
    canvas.field("Prompt").fill("a cat")
    canvas.button("Generate").click()
    expect(canvas.page.get_by_role("alert")).to_contain_text("The server cannot be reached")
    canvas.context.close()


def test_a_key_is_asked_for_and_remembered(browser, tiny: Unclip):
    with served(tiny, api_keys=("correct horse",)) as url:
        canvas = Canvas(browser, url)
        canvas.page.goto(url)
        dialog = canvas.page.get_by_role("dialog", name="API key")
        for key, message in (("wrong", "This server needs a key"), ("correct horse", "does not accept this key")):
            expect(dialog).to_contain_text(message)
            canvas.field("Key").fill(key)
            canvas.press("Enter")
        canvas.page.wait_for_selector("body[data-ready]")
        canvas.generate("generations", prompt="a cat")
        canvas.page.reload()
        canvas.page.wait_for_selector("body[data-ready]")
        expect(dialog).to_be_hidden()
        canvas.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_controls_have_names_and_a_focus(browser, url, scheme):
    for canvas in opened(browser, url, color_scheme=scheme):
        canvas.generate("generations", 2, prompt="a cat")
        nodes = canvas.context.new_cdp_session(canvas.page).send("Accessibility.getFullAXTree")["nodes"]
        controls = [node for node in nodes if not node["ignored"] and is_focusable(node)]
        assert len(controls) > 30
        assert [node["role"]["value"] for node in controls if not node["name"]["value"].strip()] == []
        canvas.press("Escape", "?")
        expect(canvas.page.get_by_role("dialog", name="Help")).to_be_visible()
        canvas.press("Escape")
        canvas.page.locator("body").click(position={"x": 640, "y": 26})
        reached = set()
        for _ in range(60):
            canvas.press("Tab")
            reached.add(canvas.page.evaluate("document.activeElement.id || document.activeElement.name"))
        assert {"prompt", "seed", "generate", "view", "frame", "tool-brush", "zoom-in", "undo", "help"} - reached == {
            "undo"  # nothing to undo yet
        }


def is_focusable(node: dict[str, Any]) -> bool:
    if node["role"]["value"] in ("RootWebArea", "dialog"):
        return False
    return any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", ()))


def test_colours_follow_the_system_until_they_are_chosen(browser, url):
    for canvas in opened(browser, url, color_scheme="dark"):
        colour = "getComputedStyle(document.body).backgroundColor"
        dark = canvas.page.evaluate(colour)
        canvas.page.get_by_role("button", name="Colours").click()
        canvas.says("Colours: light")
        assert canvas.page.evaluate(colour) != dark
        canvas.page.reload()
        canvas.page.wait_for_selector("body[data-ready]")
        assert canvas.page.evaluate(colour) != dark


@pytest.mark.parametrize("width", [1280, 1024, 768, 390])
def test_everything_fits_on_narrow_screens(browser, url, width):
    for canvas in opened(browser, url):
        canvas.page.set_viewport_size({"width": width, "height": 720})
        canvas.generate("generations", 4, prompt="a cat")
        assert canvas.page.evaluate("document.documentElement.scrollWidth") <= width
        for control in canvas.page.locator("#stage button:visible, header button:visible, #generate").all():
            box = control.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
            assert box["y"] >= 0 and box["y"] + box["height"] <= 720


def test_a_second_tab_does_not_overwrite_the_first(canvas):
    other = canvas.context.new_page()
    other.goto(canvas.url)
    other.wait_for_selector("body[data-ready]")
    expect(other.get_by_role("alert")).to_contain_text("open in another tab")


def test_the_page_is_in_the_installed_package():
    from unclip.server.routes import WEB

    names = {path.name for path in WEB.iterdir()}
    assert {"index.html", "style.css", "app.js", "icon.svg"} <= names
    text = "".join(path.read_text() for path in WEB.iterdir())
    assert not {urlsplit(word).netloc for word in text.split('"') if word.startswith("http")} - {"www.w3.org"}
