"""The canvas in a real browser, and what a user does with it."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright", reason="needs playwright, of the extra `test`")
from playwright.sync_api import Browser, Page, Response, expect  # noqa: E402

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
needs_browser = pytest.mark.skipif(PROGRAM is None, reason=f"needs a browser: one of {', '.join(PROGRAMS)}")
TIMEOUT = 20_000  # milliseconds
FILE_IDS = """() => new Promise((resolve) => {
    indexedDB.open("unclip-canvas").onsuccess = ({target}) => {
        const files = target.result.transaction("files").objectStore("files").getAll();
        files.onsuccess = () => (target.result.close(), resolve(files.result.map(({id}) => id)));
    };
})"""
"""The ids of the images that the page holds."""


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
        """Drag the pointer along places, in fractions of the frame, once that stands still."""
        box = None
        for _ in range(100):
            before, box = box, self.frame()
            if box == before:
                break
            self.page.wait_for_timeout(50)
        for number, (x, y) in enumerate(places):
            self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
            if number == 0:
                self.page.mouse.down()
        self.page.mouse.up()


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
