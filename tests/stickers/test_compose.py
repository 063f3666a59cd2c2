"""Composition of scenes, and the split into training and held-out scenes."""

import subprocess
import sys

import numpy as np
import pytest

from tests.stickers.conftest import CaptionedScenes
from unclip.errors import DataError
from unclip.models.layout import LAYOUT_SIZE
from unclip.stickers.captions import canonical_caption
from unclip.stickers.compose import GRID, LARGE, MEDIUM, SMALL, SceneOptions, is_held_out
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, SIZE_WORDS, PlacedObject, Scene
from unclip.stickers.sprites import load_nouns
from unclip.stickers.stream import scene_at


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
        ({"styles": ("flatt",)}, "scenes have no style 'flatt'; did you mean 'flat'?"),
        ({"styles": ()}, "scenes need a style of the sprites: noto, flat, cartoon"),
    ],
)
def test_invalid_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        SceneOptions(**options)
    assert str(caught.value) == message


def test_a_layout_is_all_that_a_caption_leaves_open() -> None:
    options = SceneOptions(singles=0.5, spread=1, vary=True, nouns=("cat", "dog", "globe"))
    seen: dict[object, set[object]] = {}
    for i in range(3000):
        scene, _ = scene_at(3, i, options)
        seen.setdefault((canonical_caption(scene), scene.layout), set()).add(scene.objects)
    assert max(map(len, seen.values())) == 1
    assert len({key[1] for key in seen}) > 100
    assert not any(
        placed.mirrored for objects in seen.values() for scene in objects for placed in scene if placed.name == "globe"
    )


def test_layouts_vary_places_sizes_and_mirror_images() -> None:
    scenes = [scene_at(3, i, SceneOptions(singles=1, vary=True))[0] for i in range(300)]
    placed = [scene.objects[0] for scene in scenes if scene.size_word is None]
    assert len({(each.x, each.y, each.size, each.mirrored) for each in placed}) > 50
    assert {each.size for each in placed} == {MEDIUM - GRID, MEDIUM, MEDIUM + GRID}
    fixed = [scene_at(3, i, SceneOptions(singles=1, layouts=True))[0] for i in range(100)]
    assert {scene.objects[0].size for scene in fixed} == {SMALL, MEDIUM, LARGE}
    assert not any(scene.objects[0].mirrored for scene in fixed)
    assert len(scenes[0].layout.vector() if scenes[0].layout else ()) == LAYOUT_SIZE
    assert scene_at(3, 0)[0].layout is None


def test_layouts_keep_objects_apart_and_on_the_canvas() -> None:
    options = SceneOptions(singles=0.2, vary=True, styles=("flat", "cartoon"), hard_pairs=True)
    varied = [scene_at(4, i, options) for i in range(600)]
    test_objects_are_on_the_canvas_and_do_not_overlap(varied)
    test_positions_agree_with_the_relation(varied)


def test_swapped_pairs_mirror_only_what_may_be() -> None:
    options = SceneOptions(singles=0, vary=True, hard_pairs=True, nouns=("cat", "globe", "watch", "dog"))
    for i in range(400):
        scene, _ = scene_at(5, i, options)
        for placed in scene.objects:
            assert placed.mirrored == (
                scene.layout is not None and scene.layout.mirrored and placed.name in ("cat", "dog")
            )


def test_styles_are_shared_and_only_those_that_have_the_nouns() -> None:
    scenes = [scene_at(3, i, SceneOptions(styles=("flat", "flat", "cartoon")))[0] for i in range(600)]
    assert 0.25 < sum(scene.style == "cartoon" for scene in scenes) / len(scenes) < 0.42
    rackets = [
        scene_at(3, i, SceneOptions(singles=1, styles=("flat", "cartoon"), nouns=("tennis racket", "cat")))[0]
        for i in range(100)
    ]
    assert {scene.style for scene in rackets if scene.objects[0].name == "tennis racket"} == {"flat"}
    only = [
        scene_at(3, i, SceneOptions(singles=1, styles=("cartoon",), nouns=("tennis racket", "cat")))[0]
        for i in range(20)
    ]
    assert {scene.objects[0].name for scene in only} == {"cat"}
