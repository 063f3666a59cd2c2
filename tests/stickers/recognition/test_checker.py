"""The check of generated pictures, on pictures whose truth is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unclip.errors import DataError
from unclip.stickers.captions import canonical_caption
from unclip.stickers.compose import is_held_out
from unclip.stickers.prompts import prompts
from unclip.stickers.recognition.checker import background_colour, check, find_objects
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, Placed, Scene

DOG = Scene((Placed("dog", 0.5, 0.5, 0.6),), "pink", "single")
APPLES = Scene(
    tuple(Placed("apple", x, y, 0.4) for x, y in ((0.25, 0.3), (0.72, 0.28), (0.3, 0.75))), "blue", "count", count=3
)


def pair(relation: str, first: tuple[float, float], second: tuple[float, float], background: str = "white") -> Scene:
    placed = Placed("penguin", *first, 0.4), Placed("pizza", *second, 0.4)
    return Scene(placed, background, "pair", relation=relation)


BESIDE = pair("left of", (0.25, 0.45), (0.75, 0.55))
STACKED = pair("above", (0.5, 0.25), (0.45, 0.75))


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, Scene]]:
    return prompts(24, seed=0)


def spoiled(picture: np.ndarray) -> np.ndarray:
    """As a small model draws: out of focus, grainy, its colours a little off."""
    blurred = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(0.8)), np.float64)
    grain = np.random.default_rng(0).normal(0, 0.02 * 255, blurred.shape)
    return np.clip(blurred + grain + (5, -4, 6), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("pixels", [64, 256])
def test_true_pictures_pass(asked, pixels):
    refused = [text for text, scene in asked if not check(render(scene, pixels), scene).all]
    assert not refused


def test_spoiled_pictures_pass(asked):
    verdicts = {text: check(spoiled(render(scene, 64)), scene) for text, scene in asked}
    assert not [text for text, verdict in verdicts.items() if not verdict.all]


def test_pictures_of_something_else_fail(asked):
    others = asked[1:] + asked[:1]
    pictures = [render(scene, 64) for _, scene in asked[::3]]
    assert not [text for picture, (text, scene) in zip(pictures, others[::3], strict=True) if check(picture, scene).all]


def test_objects_are_found_where_they_are():
    found = {one.name: one for one in find_objects(render(BESIDE, 64))}
    assert set(found) == {"penguin", "pizza"}
    for placed in BESIDE.objects:
        one = found[placed.name]
        assert (one.x, one.y, one.size) == pytest.approx((placed.x, placed.y, placed.size), abs=0.03)
        assert one.score > 0.95


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_are_named(background):
    scene = replace(DOG, background=background, objects=(Placed("dog", 0.5, 0.5, 0.9),))
    seen = background_colour(render(scene, 64))
    assert (seen.name, seen.distance) == (background, 0)
    assert background_colour(spoiled(render(scene, 64))).name == background


def test_a_wrong_background_is_told():
    verdict = check(render(DOG, 64), replace(DOG, background="red"))
    assert verdict.objects and not verdict.background and not verdict.all


def test_a_border_of_no_named_colour_fails():
    picture = render(replace(DOG, background="green"), 64)
    picture[(picture == BACKGROUNDS["green"]).all(axis=-1)] = (20, 250, 20)
    assert background_colour(picture).distance > 40
    assert not check(picture, replace(DOG, background="green")).background


def test_a_wrong_object_is_told():
    picture = render(DOG, 64)
    for name in ("cat", "bear", "fox", "teddy bear"):
        verdict = check(picture, replace(DOG, objects=(Placed(name, 0.5, 0.5, 0.6),)))
        assert verdict.background and not verdict.objects and not verdict.all


def test_one_object_too_many_or_too_few_is_told():
    single = Scene((Placed("penguin", 0.5, 0.5, 0.6),), "white", "single")
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
    picture = render(scene, 64)
    for relation in true + false:
        verdict = check(picture, replace(scene, relation=relation))
        assert verdict.objects
        assert verdict.relation == verdict.all == (relation in true)


def test_order_of_mention_decides_who_is_left():
    swapped = replace(BESIDE, objects=BESIDE.objects[::-1])
    verdict = check(render(BESIDE, 64), swapped)
    assert verdict.objects and verdict.relation is False


def test_counts():
    picture = render(APPLES, 64)
    assert check(picture, APPLES).all
    for wrong in (2, 4):
        verdict = check(picture, replace(APPLES, count=wrong))
        assert verdict.objects and verdict.count is False and not verdict.all
    mixed = replace(APPLES, objects=(*APPLES.objects[:2], Placed("car", 0.3, 0.75, 0.4)))
    assert not check(render(mixed, 64), APPLES).all


def test_more_than_four_are_not_four():
    five = tuple(Placed("apple", x, y, 0.3) for x in (0.18, 0.82) for y in (0.18, 0.82)) + (
        Placed("apple", 0.5, 0.5, 0.3),
    )
    verdict = check(render(replace(APPLES, objects=five), 64), replace(APPLES, count=4))
    assert verdict.count is False


def test_size_words():
    small = replace(DOG, objects=(Placed("dog", 0.4, 0.6, 0.32),), size_word="small")
    large = replace(DOG, objects=(Placed("dog", 0.5, 0.5, 0.85),), size_word="large")
    assert check(render(small, 64), small).all and check(render(large, 64), large).all
    assert check(render(small, 64), large).size is False and check(render(large, 64), small).size is False
    assert check(render(small, 64), DOG).size is None


def test_touching_objects_are_told_apart():
    picture = render(pair("left of", (0.3, 0.5), (0.66, 0.5)), 64)
    assert Counter(one.name for one in find_objects(picture)) == {"penguin": 1, "pizza": 1}


def test_two_objects_that_look_like_a_third_are_two():
    gears = Scene((Placed("gear", 0.25, 0.5, 0.38), Placed("gear", 0.7, 0.5, 0.38)), "black", "count", count=2)
    assert check(spoiled(render(gears, 64)), gears).all  # they could pass for glasses


def test_nothing_is_found_where_nothing_is():
    empty = np.full((64, 64, 3), BACKGROUNDS["blue"], np.uint8)
    assert find_objects(empty) == [] and find_objects(spoiled(empty)) == []
    assert not check(empty, replace(DOG, background="blue")).all
    assert not check(empty, APPLES).all


def test_a_speck_is_no_object():
    picture = render(DOG, 64)
    picture[1:3, 1:3] = 0
    assert check(picture, DOG).all


def test_a_smudge_is_not_recognised():
    smudge = Image.fromarray(render(DOG, 64)).filter(ImageFilter.GaussianBlur(9))
    assert not check(smudge, DOG).objects


def test_prompts_are_repeatable_and_of_the_split(asked):
    assert asked == prompts(24, seed=0) and asked != prompts(36, seed=1)
    assert Counter(scene.kind for _, scene in asked) == {"single": 8, "pair": 8, "count": 8}
    assert all(is_held_out(scene) and text == canonical_caption(scene) for text, scene in asked)
    trained = prompts(5, seed=3, kinds=("pair",), split="train")
    assert all(scene.kind == "pair" and not is_held_out(scene) for _, scene in trained)


def test_prompts_of_some_nouns_only():
    asked = prompts(30, seed=0, split="train", nouns=("cat", "dog", "fox"))
    assert {placed.name for _, scene in asked for placed in scene.objects} == {"cat", "dog", "fox"}


def test_prompts_of_no_such_kind():
    with pytest.raises(DataError, match="triple"):
        prompts(1, seed=0, kinds=("triple",))
