"""The page of the canvas: errors, keys, accessibility, narrow screens, its policy and its files."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.server.canvas_page import Canvas, expect, needs_browser, opened
from tests.server.conftest import served
from unclip.pipeline import Unclip

pytestmark = needs_browser


def test_the_page_has_a_strict_policy(url, client):
    response = client.get("/")
    assert response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for name in ("app.js", "style.css", "icon.svg"):
        answer = client.get(f"/web/{name}")
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"


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
