"""The reproducible stream of scenes."""

import hashlib
from typing import Any

import numpy as np
import pytest

from unclip.requests.vocabulary import unknown_words
from unclip.stickers.captions import vocabulary
from unclip.stickers.compose import SceneOptions, is_held_out
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, Scene
from unclip.stickers.stream import scene_at
from unclip.training.data.datasets import open_dataset

FOUR = ("cat", "dog", "car", "apple")


def stream(count: int, seed: int = 3, **options: Any) -> list[tuple[Scene, str]]:
    """Return the first scenes of a stream, with their captions."""
    return [scene_at(seed, i, SceneOptions(**options)) for i in range(count)]


def test_a_scene_depends_on_seed_and_index_only() -> None:
    forward = stream(20)
    assert [scene_at(3, i) for i in reversed(range(20))] == forward[::-1]
    assert stream(20, seed=4) != forward
    assert len(set(forward)) == 20
    assert np.array_equal(render(forward[0][0], 64), render(forward[0][0], 64))


@pytest.mark.parametrize(
    ("options", "text", "pixels"),
    [
        ({}, "977f7471e7bb5079", "a02a47267203048f"),
        ({"split": "held_out"}, "db933a46fae72c0f", "2244f5371249d890"),
        ({"singles": 0.2, "alike": 8, "hard_pairs": True, "counts": 0.7}, "58ed643fdb502835", "db96119e3fd185f9"),
        (
            {"singles": 0.1, "spread": 0, "nouns": ("cat", "dog", "car", "apple")},
            "50e371bb49c79096",
            "1ff61c1738907106",
        ),
    ],
)
def test_the_stream_never_changes(options: dict, text: str, pixels: str) -> None:
    """Models are trained on this stream and resume in the middle of it."""
    captions, images = hashlib.sha256(), hashlib.sha256()
    for scene, caption in stream(60, seed=5, **options):
        captions.update(f"{caption}\n".encode())
        images.update(render(scene, 64).tobytes())
    assert captions.hexdigest()[:16] == text
    assert images.hexdigest()[:16] == pixels


def test_the_fraction_of_single_objects_is_an_option() -> None:
    for singles in (0.0, 0.75, 1.0):
        kinds = [scene.kind for scene, _ in stream(600, singles=singles)]
        assert abs(kinds.count("single") / 600 - singles) < 0.06
        if singles < 1:
            assert kinds.count("pair") > kinds.count("count") > 0
    assert stream(50) == stream(50, singles=0.45)


def test_the_fraction_of_counts_is_an_option() -> None:
    for counts in (0.0, 0.6, 1.0):
        kinds = [scene.kind for scene, _ in stream(600, singles=0.3, hard_pairs=True, counts=counts)]
        assert abs(kinds.count("count") / 600 - 0.7 * counts) < 0.06
        assert abs(kinds.count("single") / 600 - 0.3) < 0.06
    data = open_dataset({"kind": "scenes", "counts": 1.0, "singles": 0.0}, 16, 3)
    assert [data[i][1] for i in range(20)] == [text for _, text in stream(20, singles=0.0, counts=1.0)]


def test_consecutive_scenes_can_share_a_background() -> None:
    scenes = [scene for scene, _ in stream(320, alike=8)]
    groups = [scenes[start : start + 8] for start in range(0, 320, 8)]
    assert all(len({scene.background for scene in group}) == 1 for group in groups)
    assert {group[0].background for group in groups} == set(BACKGROUNDS)
    assert len({scene.objects[0].name for scene in scenes}) > 100
    assert not any(is_held_out(scene) for scene in scenes)
    assert len({scene.background for scene, _ in stream(8, alike=1)}) > 1


def test_a_hard_pair_is_followed_by_the_pair_with_its_objects_swapped() -> None:
    captioned = stream(600, hard_pairs=True)
    twos = list(zip(captioned[::2], captioned[1::2], strict=True))
    assert all(first == scene_at(3, 2 * i) for i, (first, _) in enumerate(twos))  # even indices are unchanged
    swapped = 0
    for (first, text), (second, second_text) in twos:
        if first.kind != "pair" or first.relation == "next to":
            continue
        swapped += 1
        assert [placed.name for placed in first.objects] == [placed.name for placed in second.objects][::-1]
        assert [(placed.x, placed.y, placed.size) for placed in first.objects] == [
            (placed.x, placed.y, placed.size) for placed in second.objects
        ]
        assert (first.background, first.relation) == (second.background, second.relation)
        assert is_held_out(first) == is_held_out(second) and text != second_text
    assert swapped > 50
    beside = [two for two in twos if two[0][0].relation == "next to"]
    assert beside and all(first[0].objects[::-1] != second[0].objects for first, second in beside)
    assert all((first.kind, first.relation) == (second.kind, second.relation) for (first, _), (second, _) in twos)


def test_hard_pairs_respect_the_split_and_share_a_background() -> None:
    scenes = [scene for scene, _ in stream(200, split="held_out", alike=3, hard_pairs=True, singles=0.0)]
    for first, second in zip(scenes[::2], scenes[1::2], strict=True):
        assert is_held_out(first) and is_held_out(second)
        if first.kind == "pair" and first.relation != "next to":
            assert first.background == second.background
    data = open_dataset({"kind": "scenes", "hard_pairs": True, "singles": 0.0}, 16, 3)
    assert [data[i][1] for i in range(40)] == [text for _, text in stream(40, singles=0.0, hard_pairs=True)]


def test_without_spread_the_first_of_two_side_by_side_is_on_the_left() -> None:
    def first_is_left(**options: Any) -> list[bool]:
        scenes = (scene for scene, _ in stream(400, singles=0.0, **options))
        return [scene.objects[0].x < scene.objects[1].x for scene in scenes if scene.relation == "next to"]

    assert all(first_is_left(spread=0)) and len(first_is_left(spread=0)) > 20
    assert 0.3 < sum(first_is_left()) / len(first_is_left()) < 0.7


def test_only_the_given_nouns_are_used() -> None:
    nouns = ("cat", "hot dog", "chick")
    captioned = stream(200, nouns=nouns)
    assert {placed.name for scene, _ in captioned for placed in scene.objects} == set(nouns)
    assert all(unknown_words(text, vocabulary(nouns).words) == [] for _, text in captioned)
