"""Takes the screenshots of the canvas that the documentation shows, in a browser, from a server that runs.

    unclip serve &
    python assets/canvas/take_screenshots.py http://127.0.0.1:8000

Needs playwright and Chromium. The candidates come from the bundled model, by fixed seeds.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 1280, 720


def main(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        generate(page, "New", "a strawberry to the left of a mushroom on a green background", seed=3)
        page.locator("#accept").click()
        move_frame(page, left=128)
        generate(page, "Fill", "an apple on a green background", seed=12)
        page.locator("#next").click(click_count=2)
        save(page, "candidates")

        page.locator("#accept").click()
        move_frame(page, left=0)
        page.emulate_media(color_scheme="dark")
        page.get_by_label("Prompt", exact=True).fill("a penguin to the left of a mushroom on a green background")
        page.locator("#tool-lasso").click()
        surround(page, (0.06, 0.5), (0.06, 0.38), (0.16, 0.26), (0.25, 0.22), (0.35, 0.25), (0.45, 0.36), (0.5, 0.5))
        save(page, "mask")
        browser.close()


def generate(page: Page, mode: str, prompt: str, seed: int) -> None:
    """Generate four candidates, and wait for all."""
    page.locator(f"label:has-text('{mode}')").filter(has=page.locator("input[type=radio]")).first.click()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Seed", exact=True).fill(str(seed))
    page.locator("#generate").click()
    page.wait_for_selector("#staging:not([hidden]) #accept:enabled", timeout=120_000)
    page.wait_for_selector("#generate:not(.stops)", timeout=120_000)


def move_frame(page: Page, left: int) -> None:
    """Move the frame to a column of the image, in pixels, and show everything."""
    page.get_by_text("Frame", exact=True).click()
    page.locator("[name=frame-left]").fill(str(left))
    page.keyboard.press("Tab")
    page.get_by_text("Frame", exact=True).click()
    page.locator("#zoom-fit").click()


def surround(page: Page, *upper: tuple[float, float]) -> None:
    """Drag the pointer around an object, in fractions of the frame: above it, and back below it."""
    page.wait_for_timeout(500)  # until the view stands still
    frame = page.locator("#frame").bounding_box()
    assert frame is not None
    places = [*upper, *((x, 1 - y) for x, y in reversed(upper))]
    for number, (x, y) in enumerate(places):
        page.mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"], steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def save(page: Page, name: str) -> None:
    """Write a screenshot as WebP."""
    page.wait_for_timeout(500)
    Image.open(io.BytesIO(page.screenshot())).save(FOLDER / f"{name}.webp", quality=90, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
