"""The check of images, on renderings and their degraded copies."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.stickers.recognition.samples import degraded, pair_of
from unclip.stickers.compose import SceneOptions
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.recognition.checker import check, find_background, find_objects
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, PlacedObject, Scene
from unclip.stickers.sprites import VECTOR_STYLES
from unclip.stickers.stream import scene_at

DOG = Scene((PlacedObject("dog", 0.5, 0.5, 0.6),), "pink", "single")
APPLES = Scene(
    tuple(PlacedObject("apple", x, y, 0.4) for x, y in ((0.25, 0.3), (0.72, 0.28), (0.3, 0.75))),
    "blue",
    "count",
    count=3,
)


BESIDE = pair_of("left of", (0.25, 0.45), (0.75, 0.55))
STACKED = pair_of("above", (0.5, 0.25), (0.45, 0.75))


@pytest.fixture(scope="module")
def prompts() -> list[tuple[str, Scene]]:
    return sample_prompts(24, seed=0)


@pytest.mark.parametrize("pixels", [64, 256])
def test_renderings_pass(prompts, pixels):
    refused = [text for text, scene in prompts if not check(render(scene, pixels), scene).all]
    assert not refused


def test_degraded_renderings_pass(prompts):
    verdicts = {text: check(degraded(render(scene, 64)), scene) for text, scene in prompts}
    assert not [text for text, verdict in verdicts.items() if not verdict.all]


def test_renderings_of_another_scene_fail(prompts):
    others = prompts[1:] + prompts[:1]
    images = [render(scene, 64) for _, scene in prompts[::3]]
    assert not [text for image, (text, scene) in zip(images, others[::3], strict=True) if check(image, scene).all]


def test_objects_are_found_at_their_positions():
    found = {each.name: each for each in find_objects(render(BESIDE, 64))}
    assert set(found) == {"penguin", "pizza"}
    for placed in BESIDE.objects:
        detected = found[placed.name]
        assert (detected.x, detected.y, detected.size) == pytest.approx((placed.x, placed.y, placed.size), abs=0.03)
        assert detected.score > 0.95


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_are_named(background):
    scene = replace(DOG, background=background, objects=(PlacedObject("dog", 0.5, 0.5, 0.9),))
    found = find_background(render(scene, 64))
    assert (found.name, found.distance) == (background, 0)
    assert find_background(degraded(render(scene, 64))).name == background


def test_a_wrong_background_fails():
    verdict = check(render(DOG, 64), replace(DOG, background="red"))
    assert verdict.objects and not verdict.background and not verdict.all


def test_a_border_of_no_named_colour_fails():
    image = render(replace(DOG, background="green"), 64)
    image[(image == BACKGROUNDS["green"]).all(axis=-1)] = (20, 250, 20)
    assert find_background(image).distance > 40
    assert not check(image, replace(DOG, background="green")).background


def test_a_wrong_object_fails():
    image = render(DOG, 64)
    for name in ("cat", "bear", "fox", "teddy bear"):
        verdict = check(image, replace(DOG, objects=(PlacedObject(name, 0.5, 0.5, 0.6),)))
        assert verdict.background and not verdict.objects and not verdict.all


def test_a_wrong_number_of_objects_fails():
    single = Scene((PlacedObject("penguin", 0.5, 0.5, 0.6),), "white", "single")
    assert not check(render(BESIDE, 64), single).all
    assert not check(render(single, 64), BESIDE).all


@pytest.mark.parametrize(
    ("scene", "true", "false"),
    [
        (BESIDE, ("left of", "next to"), ("right of", "above", "below")),
        (STACKED, ("above",), ("below", "left of", "right of", "next to")),
    ],
)
def test_relations(scene, true, false):
    image = render(scene, 64)
    for relation in true + false:
        verdict = check(image, replace(scene, relation=relation))
        assert verdict.objects
        assert verdict.relation == verdict.all == (relation in true)


def test_order_of_mention_decides_who_is_left():
    swapped = replace(BESIDE, objects=BESIDE.objects[::-1])
    verdict = check(render(BESIDE, 64), swapped)
    assert verdict.objects and verdict.relation is False


def test_counts():
    image = render(APPLES, 64)
    assert check(image, APPLES).all
    for wrong in (2, 4):
        verdict = check(image, replace(APPLES, count=wrong))
        assert verdict.objects and verdict.count is False and not verdict.all
    mixed = replace(APPLES, objects=(*APPLES.objects[:2], PlacedObject("car", 0.3, 0.75, 0.4)))
    assert not check(render(mixed, 64), APPLES).all


def test_more_than_four_are_not_four():
    five = tuple(PlacedObject("apple", x, y, 0.3) for x in (0.18, 0.82) for y in (0.18, 0.82)) + (
        PlacedObject("apple", 0.5, 0.5, 0.3),
    )
    verdict = check(render(replace(APPLES, objects=five), 64), replace(APPLES, count=4))
    assert verdict.count is False


def test_size_words():
    small = replace(DOG, objects=(PlacedObject("dog", 0.4, 0.6, 0.32),), size_word="small")
    large = replace(DOG, objects=(PlacedObject("dog", 0.5, 0.5, 0.85),), size_word="large")
    assert check(render(small, 64), small).all and check(render(large, 64), large).all
    assert check(render(small, 64), large).size is False and check(render(large, 64), small).size is False
    assert check(render(small, 64), DOG).size is None


def test_an_empty_image_has_no_objects():
    empty = np.full((64, 64, 3), BACKGROUNDS["blue"], np.uint8)
    assert find_objects(empty) == [] and find_objects(degraded(empty)) == []
    assert not check(empty, replace(DOG, background="blue")).all
    assert not check(empty, APPLES).all


def test_a_smudge_is_not_recognised():
    smudge = Image.fromarray(render(DOG, 64)).filter(ImageFilter.GaussianBlur(9))
    assert not check(smudge, DOG).objects


@pytest.mark.parametrize("style", VECTOR_STYLES)
def test_scenes_of_other_styles_are_recognised_with_their_sprites_mirrored_or_not(style: str) -> None:
    options = SceneOptions(split="held_out", styles=(style,), vary=True)
    scenes = [scene_at(11, i, options)[0] for i in range(12)]
    assert sum(check(render(scene, 256), scene).all for scene in scenes) >= 11
    assert any(placed.mirrored for scene in scenes for placed in scene.objects)
    assert not all(check(render(scene, 64), replace(scene, style="noto")).all for scene in scenes[:5])
