"""Likeness to the true rendering: exact for what was rendered, low for blurs of it and for other objects."""

from dataclasses import replace

import pytest
from PIL import Image, ImageFilter

from unclip.errors import DataError
from unclip.stickers.compose import SceneOptions
from unclip.stickers.recognition.likeness import best_fit
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, PlacedObject
from unclip.stickers.stream import scene_at


@pytest.mark.parametrize("style, index", [("flat", 0), ("flat", 1), ("cartoon", 2), ("noto", 3)])
def test_a_rendering_fits_itself_from_a_rough_guess(style: str, index: int) -> None:
    scene, _ = scene_at(5, index, SceneOptions(singles=1, vary=style != "noto", styles=(style,)))
    placed = scene.objects[0]
    guess = PlacedObject(placed.name, placed.x + 0.03, placed.y - 0.03, placed.size * 1.06)
    fit = best_fit(render(scene, 256), guess, BACKGROUNDS[scene.background], style)
    assert fit.psnr > 40 and fit.explained > 0.99 and fit.is_recognisable
    found = fit.placed
    assert (found.x, found.y, found.size) == pytest.approx((placed.x, placed.y, placed.size), abs=0.02)


def test_blurred_and_other_objects_fit_worse() -> None:
    scene, _ = scene_at(5, 0, SceneOptions(singles=1, styles=("flat",)))
    placed, background = scene.objects[0], BACKGROUNDS[scene.background]
    image = Image.fromarray(render(scene, 256))
    sharp = best_fit(image, placed, background, "flat")
    blurred = best_fit(image.filter(ImageFilter.GaussianBlur(6)), placed, background, "flat")
    other = best_fit(image, replace(placed, name="car"), background, "flat")
    nothing = best_fit(Image.new("RGB", (256, 256), background), placed, background, "flat")
    assert sharp.psnr > blurred.psnr + 10 > other.psnr + 10
    assert nothing.explained == pytest.approx(0, abs=0.01)
    assert not other.is_recognisable and not nothing.is_recognisable


def test_a_mirror_image_is_found() -> None:
    scene, _ = scene_at(5, 0, SceneOptions(singles=1, styles=("flat",), nouns=("car", "fish")))
    mirrored = replace(scene, objects=(replace(scene.objects[0], mirrored=True),))
    fit = best_fit(render(mirrored, 128), scene.objects[0], BACKGROUNDS[scene.background], "flat")
    assert fit.placed.mirrored and fit.psnr > 35


def test_an_unknown_object_is_refused() -> None:
    with pytest.raises(DataError, match="no noun 'pengiun'"):
        best_fit(Image.new("RGB", (64, 64)), PlacedObject("pengiun", 0.5, 0.5, 0.5), (0, 0, 0))
