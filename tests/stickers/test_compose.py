"""Composition of scenes, and the split into training and held-out scenes."""

import subprocess
import sys

import numpy as np
import pytest

from tests.stickers.conftest import CaptionedScenes
from unclip.errors import DataError
from unclip.stickers.compose import GRID, LARGE, MEDIUM, SMALL, SceneOptions, is_held_out
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, SIZE_WORDS, PlacedObject, Scene
from unclip.stickers.sprites import load_nouns


def test_default_fractions_of_kinds(scenes: CaptionedScenes) -> None:
    kinds = [scene.kind for scene, _ in scenes]
    for kind, fraction in (("single", 0.45), ("pair", 0.35), ("count", 0.2)):
        assert kinds.count(kind) / len(kinds) == pytest.approx(fraction, abs=0.05)
    assert {scene.background for scene, _ in scenes} == set(BACKGROUNDS)
    assert {scene.relation for scene, _ in scenes} == {None, *RELATIONS}
    assert {scene.count for scene, _ in scenes} == {None, *COUNTS}
    assert {scene.size_word for scene, _ in scenes} == {None, *SIZE_WORDS}


def test_splits_are_disjoint(train_scenes: CaptionedScenes, held_out_scenes: CaptionedScenes) -> None:
    assert not any(is_held_out(scene) for scene, _ in train_scenes)
    assert all(is_held_out(scene) for scene, _ in held_out_scenes)


def test_eight_percent_are_held_out() -> None:
    nouns = list(load_nouns())
    singles = [is_held_out(Scene((PlacedObject(n, 0.5, 0.5, 0.5),), b, "single")) for n in nouns for b in BACKGROUNDS]
    pairs = [
        is_held_out(Scene((PlacedObject(a, 0.3, 0.5, 0.4), PlacedObject(b, 0.7, 0.5, 0.4)), "pink", "pair", "left of"))
        for a in nouns[:80]
        for b in nouns[80:160]
    ]
    assert np.mean(singles) == pytest.approx(0.08, abs=0.02)
    assert np.mean(pairs) == pytest.approx(0.08, abs=0.02)


def test_a_pair_is_held_out_in_both_orders(scenes: CaptionedScenes) -> None:
    pairs = [scene for scene, _ in scenes if scene.kind == "pair"]
    for scene in pairs:
        swapped = Scene(scene.objects[::-1], "white", "pair", "above")
        assert is_held_out(swapped) == is_held_out(scene)


def test_objects_are_on_the_canvas_and_do_not_overlap(scenes: CaptionedScenes) -> None:
    for scene, _ in scenes:
        for placed in scene.objects:
            half = placed.size / 2
            assert half <= placed.x <= 1 - half and half <= placed.y <= 1 - half, scene
        for i, a in enumerate(scene.objects):
            for b in scene.objects[i + 1 :]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2, scene


def test_positions_agree_with_the_relation(scenes: CaptionedScenes) -> None:
    for scene, _ in scenes:
        if scene.kind != "pair":
            continue
        first, second = scene.objects
        assert first.name != second.name
        dx, dy = first.x - second.x, first.y - second.y
        sideways = abs(dx) > abs(dy)
        assert {
            "left of": sideways and dx < 0,
            "right of": sideways and dx > 0,
            "above": not sideways and dy < 0,
            "below": not sideways and dy > 0,
            "next to": sideways,
        }[scene.relation], scene


def test_objects_agree_with_count_and_size_word(scenes: CaptionedScenes) -> None:
    for scene, _ in scenes:
        if scene.kind == "count":
            assert len(scene.objects) == scene.count
            assert len({placed.name for placed in scene.objects}) == 1
        elif scene.kind == "single":
            (placed,) = scene.objects
            assert placed.size == {"small": SMALL, "large": LARGE, None: MEDIUM}[scene.size_word]


def test_objects_stand_on_the_grid_in_one_of_three_sizes(scenes: CaptionedScenes) -> None:
    placed = [each for scene, _ in scenes for each in scene.objects]
    assert {each.size for each in placed} == {SMALL, MEDIUM, LARGE}
    for each in placed:
        for centre in (each.x, each.y):
            assert ((centre - each.size / 2) / GRID).is_integer(), each


def test_importing_loads_no_torch() -> None:
    code = "import sys, unclip.stickers.compose; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "scenes have no split 'test'; known: train, held_out"),
        ({"split": "trian"}, "scenes have no split 'trian'; did you mean 'train'?"),
        ({"nouns": ("cat", "penguim")}, "scenes have no noun 'penguim'; did you mean 'penguin'?"),
        ({"nouns": ("cat",)}, "scenes need at least two nouns, not only 'cat'"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        SceneOptions(**options)
    assert str(caught.value) == message
