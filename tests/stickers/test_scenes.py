"""The training scenes: what is drawn, what is said of it, and what is kept out of training."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from unclip.errors import DataError
from unclip.requests.vocabulary import unknown_words
from unclip.stickers.captions import canonical_caption, caption, nouns_in, vocabulary
from unclip.stickers.compose import GRID, LARGE, MEDIUM, SMALL, draw_scene, is_held_out
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, SIZE_WORDS, Placed, Scene
from unclip.stickers.sprites import load_nouns, load_sprites
from unclip.stickers.stream import scene_at
from unclip.system.resources import bundled
from unclip.training.data.open import open_dataset

N = 1500


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Scene, str]]:
    return [scene_at(0, i) for i in range(N)] + [scene_at(0, i, "held_out") for i in range(N // 3)]


def says(text: str, phrases) -> bool:
    return any(re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text.lower()) for phrase in phrases)


def drawn_box(scene: Scene, pixels: int) -> np.ndarray:
    """Where the picture differs from its background: h w, bool."""
    difference = render(scene, pixels).astype(int) - np.array(BACKGROUNDS[scene.background])
    return np.abs(difference).max(axis=-1) > 0


def test_atlas_is_small_licensed_and_names_are_unique():
    nouns = load_nouns()
    assert bundled("assets", "sprites", "atlas.webp").stat().st_size < 6e6
    assert "SIL OPEN FONT LICENSE Version 1.1" in bundled("assets", "sprites", "LICENSE").read_text()
    assert len(nouns) >= 200
    assert {"penguin", "cat", "dog", "car", "apple", "banana"} <= set(nouns)
    names = [name for noun in nouns.values() for name in (noun.name, *noun.synonyms)]
    assert len(names) == len(set(names))
    assert len({noun.codepoint for noun in nouns.values()}) == len(nouns)
    for noun in nouns.values():
        assert len(noun.synonyms) == len(noun.synonym_plurals), noun.name
        assert noun.bare <= {noun.name, *noun.synonyms}, noun.name


def test_every_sprite_has_a_picture():
    sprites = load_sprites()
    for name in sprites.names:
        picture = np.asarray(sprites.picture(name, 40))  # h w 4
        assert max(picture.shape[:2]) == 40, name
        assert (picture[..., 3] > 128).mean() > 0.1, name


def test_scene_is_a_function_of_seed_and_index():
    forward = [scene_at(3, i) for i in range(20)]
    assert [scene_at(3, i) for i in reversed(range(20))] == forward[::-1]
    assert [scene_at(4, i) for i in range(20)] != forward
    assert len(set(forward)) == 20
    assert np.array_equal(render(forward[0][0], 64), render(forward[0][0], 64))


def test_shares_of_kinds(drawn):
    kinds = [scene.kind for scene, _ in drawn]
    for kind, share in (("single", 0.45), ("pair", 0.35), ("count", 0.2)):
        assert kinds.count(kind) / len(kinds) == pytest.approx(share, abs=0.05)
    scenes = [scene for scene, _ in drawn]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.relation for scene in scenes} == {None, *RELATIONS}
    assert {scene.count for scene in scenes} == {None, *COUNTS}
    assert {scene.size_word for scene in scenes} == {None, *SIZE_WORDS}


def test_splits_never_meet(drawn):
    assert not any(is_held_out(scene) for scene, _ in drawn[:N])
    assert all(is_held_out(scene) for scene, _ in drawn[N:])


def test_share_held_out():
    nouns = list(load_nouns())
    singles = [is_held_out(Scene((Placed(n, 0.5, 0.5, 0.5),), b, "single")) for n in nouns for b in BACKGROUNDS]
    pairs = [
        is_held_out(Scene((Placed(a, 0.3, 0.5, 0.4), Placed(b, 0.7, 0.5, 0.4)), "pink", "pair", "left of"))
        for a in nouns[:80]
        for b in nouns[80:160]
    ]
    assert np.mean(singles) == pytest.approx(0.08, abs=0.02)
    assert np.mean(pairs) == pytest.approx(0.08, abs=0.02)


def test_a_pair_is_held_out_in_both_orders(drawn):
    pairs = [scene for scene, _ in drawn if scene.kind == "pair"]
    for scene in pairs:
        swapped = Scene(scene.objects[::-1], "white", "pair", "above")
        assert is_held_out(swapped) == is_held_out(scene)


def test_objects_are_on_the_canvas_and_apart(drawn):
    for scene, _ in drawn:
        for placed in scene.objects:
            half = placed.size / 2
            assert half <= placed.x <= 1 - half and half <= placed.y <= 1 - half, scene
        for i, a in enumerate(scene.objects):
            for b in scene.objects[i + 1 :]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) >= (a.size + b.size) / 2, scene


def test_relations_are_as_named(drawn):
    for scene, _ in drawn:
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


def test_counts_and_sizes_are_as_named(drawn):
    for scene, _ in drawn:
        if scene.kind == "count":
            assert len(scene.objects) == scene.count
            assert len({placed.name for placed in scene.objects}) == 1
        elif scene.kind == "single":
            (placed,) = scene.objects
            assert placed.size == {"small": SMALL, "large": LARGE, None: MEDIUM}[scene.size_word]


@pytest.mark.parametrize("pixels", [64, 256])
def test_render_draws_the_objects_where_the_scene_says(drawn, pixels):
    for scene, _ in drawn[:25]:
        image = render(scene, pixels)
        assert image.shape == (pixels, pixels, 3) and image.dtype == np.uint8
        changed = drawn_box(scene, pixels)
        ys, xs = np.mgrid[:pixels, :pixels] + 0.5
        inside = np.zeros_like(changed)
        for placed in scene.objects:
            reach = placed.size * pixels / 2 + 1
            box = (abs(xs - placed.x * pixels) <= reach) & (abs(ys - placed.y * pixels) <= reach)
            assert (changed & box).sum() > 0.05 * box.sum(), placed
            inside |= box
        assert not (changed & ~inside).any()


def test_background_is_the_named_colour():
    for colour, rgb in BACKGROUNDS.items():
        image = render(Scene((Placed("apple", 0.5, 0.5, 0.6),), colour, "single"), 64)
        assert all(tuple(image[y, x]) == rgb for y in (0, -1) for x in (0, -1))
    values = np.array(list(BACKGROUNDS.values()), float)
    distances = np.linalg.norm(values[:, None] - values, axis=-1) + 1e9 * np.eye(len(values))
    assert distances.min() > 50  # colours can be told apart


def test_sizes_of_one_scene_agree():
    """256 px reduced to 64 px is nearly the picture drawn at 64 px: the upsampler learns from such pairs."""
    for i in range(10):
        scene, _ = scene_at(9, i)
        large = render(scene, 256).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(large - render(scene, 64)).mean() < 6


def test_captions_name_what_is_drawn(drawn):
    nouns, known = load_nouns(), vocabulary()
    backgrounds = 0
    for scene, text in drawn:
        for placed in scene.objects:
            noun = nouns[placed.name]
            singular, plural = (noun.name, *noun.synonyms), (noun.plural, *noun.synonym_plurals)
            assert says(text, plural if scene.kind == "count" else singular), (scene, text)
        if scene.count is not None:
            assert says(text, known.counts[scene.count]), text
        if scene.size_word is not None:
            assert says(text, known.size_words[scene.size_word]), text
        backgrounds += says(text, known.colours[scene.background])
        assert len(text.split()) <= 22, text
    assert 0.82 < backgrounds / len(drawn) < 0.95


def test_captions_are_in_the_grammar(drawn):
    for _, text in drawn:
        assert unknown_words(text, vocabulary().words) == [], text
        assert not re.search(r"\ba [aeio]|\ban [^aeiouh]|  |[{}]", text.lower()), text
    assert set(vocabulary().colours) == set(BACKGROUNDS)
    assert set(vocabulary().relations) == set(RELATIONS)
    assert set(vocabulary().counts) == set(COUNTS)
    assert set(vocabulary().size_words) == set(SIZE_WORDS)


def test_relation_captions_keep_the_order():
    scene = Scene((Placed("cat", 0.25, 0.5, 0.4), Placed("car", 0.75, 0.5, 0.4)), "green", "pair", "left of")
    rng = np.random.default_rng(0)
    texts = {caption(scene, rng).lower() for _ in range(400)}
    assert any(text.startswith("a cat to the left of a car") for text in texts)
    assert any("a cat on the left and a car on the right" in text for text in texts)
    for text in texts:
        cat = re.search(r"cat|kitten|kitty", text).start()
        car = re.search(r"\bcar\b|automobile", text).start()
        said_of_cat_first = "on the right and" not in text
        assert (cat < car) == said_of_cat_first, text
        assert "right of" not in text, text


@pytest.mark.parametrize(
    ("objects", "fields", "text"),
    [
        (["penguin"], {"kind": "single"}, "a penguin on a pink background"),
        (["owl"], {"kind": "single", "size_word": "small"}, "a small owl on a pink background"),
        (["unicorn"], {"kind": "single"}, "a unicorn on a pink background"),
        (["hourglass"], {"kind": "single"}, "an hourglass on a pink background"),
        (["scissors"], {"kind": "single"}, "scissors on a pink background"),
        (["mouse"] * 3, {"kind": "count", "count": 3}, "three mice on a pink background"),
        (["scissors"] * 2, {"kind": "count", "count": 2}, "two pairs of scissors on a pink background"),
        (
            ["cat", "apple"],
            {"kind": "pair", "relation": "above"},
            "a cat above an apple on a pink background",
        ),
    ],
)
def test_canonical_captions(objects, fields, text):
    scene = Scene(tuple(Placed(name, 0.5, 0.5, 0.3) for name in objects), "pink", **fields)
    assert canonical_caption(scene) == text


def test_errors_name_the_fix(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="use one of train, held_out"):
        scene_at(0, 0, "test")
    with pytest.raises(DataError, match="at least two nouns"):
        draw_scene(rng, ["cat"])
    with pytest.raises(DataError, match=r"sprites\.json"):
        render(Scene((Placed("wizard", 0.5, 0.5, 0.5),), "pink", "single"), 64)
    with pytest.raises(DataError, match="restore it"):
        load_sprites(tmp_path)
    with pytest.raises(DataError, match="reinstall"):
        bundled("assets", "nowhere")


def test_import_is_light():
    code = "import sys, unclip.stickers.compose; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_every_object_stands_on_the_grid_in_one_of_three_sizes(drawn):
    placed = [each for scene, _ in drawn for each in scene.objects]
    assert {each.size for each in placed} == {SMALL, MEDIUM, LARGE}
    for each in placed:
        for centre in (each.x, each.y):
            assert ((centre - each.size / 2) / GRID).is_integer(), each


def test_the_share_of_single_objects_can_be_set():
    for singles in (0.0, 0.75, 1.0):
        kinds = [scene_at(3, i, singles=singles)[0].kind for i in range(600)]
        assert abs(kinds.count("single") / 600 - singles) < 0.06
        if singles < 1:
            assert kinds.count("pair") > kinds.count("count") > 0
    assert [scene_at(3, i) for i in range(50)] == [scene_at(3, i, singles=0.45) for i in range(50)]


def test_the_share_of_counts_can_be_set():
    for counts in (0.0, 0.6, 1.0):
        kinds = [scene_at(3, i, singles=0.3, hard_pairs=True, counts=counts)[0].kind for i in range(600)]
        assert abs(kinds.count("count") / 600 - 0.7 * counts) < 0.06
        assert abs(kinds.count("single") / 600 - 0.3) < 0.06
    data = open_dataset({"kind": "scenes", "counts": 1.0, "singles": 0.0}, 16, 3)
    assert [data[i][1] for i in range(20)] == [scene_at(3, i, singles=0.0, counts=1.0)[1] for i in range(20)]


def test_rows_of_scenes_share_a_background_when_asked():
    rows = [[scene_at(3, 8 * row + i, alike=8)[0] for i in range(8)] for row in range(40)]
    assert all(len({scene.background for scene in row}) == 1 for row in rows)
    assert {row[0].background for row in rows} == set(BACKGROUNDS)
    assert len({scene.objects[0].name for row in rows for scene in row}) > 100
    assert not any(is_held_out(scene) for row in rows for scene in row)
    assert len({scene_at(3, i, alike=1)[0].background for i in range(8)}) > 1


def test_hard_pairs_come_in_twos_with_their_objects_exchanged():
    twos = [(scene_at(3, i, hard_pairs=True), scene_at(3, i + 1, hard_pairs=True)) for i in range(0, 600, 2)]
    assert all(one == scene_at(3, 2 * i) for i, (one, _) in enumerate(twos))  # the even ones are as ever
    exchanged = 0
    for (one, text), (other, other_text) in twos:
        if one.kind != "pair" or one.relation == "next to":
            continue
        exchanged += 1
        assert [placed.name for placed in one.objects] == [placed.name for placed in other.objects][::-1]
        assert [(placed.x, placed.y, placed.size) for placed in one.objects] == [
            (placed.x, placed.y, placed.size) for placed in other.objects
        ]
        assert (one.background, one.relation) == (other.background, other.relation)
        assert is_held_out(one) == is_held_out(other) and text != other_text
    assert exchanged > 50
    beside = [two for two in twos if two[0][0].relation == "next to"]
    assert beside and all(one[0].objects[::-1] != other[0].objects for one, other in beside)
    assert all((one.kind, one.relation) == (other.kind, other.relation) for (one, _), (other, _) in twos)  # the shares


def test_hard_pairs_keep_to_the_split_and_share_a_background_however_long_the_rows():
    for i in range(0, 200, 2):
        one, other = (scene_at(3, i + k, "held_out", alike=3, hard_pairs=True, singles=0.0)[0] for k in range(2))
        assert is_held_out(one) and is_held_out(other)
        if one.kind == "pair" and one.relation != "next to":
            assert one.background == other.background
    data = open_dataset({"kind": "scenes", "hard_pairs": True, "singles": 0.0}, 16, 3)
    assert [data[i][1] for i in range(40)] == [scene_at(3, i, singles=0.0, hard_pairs=True)[1] for i in range(40)]


def test_without_spread_the_first_of_two_side_by_side_is_on_the_left():
    def beside(**options) -> list[bool]:
        drawn = (scene_at(3, i, singles=0.0, **options)[0] for i in range(400))
        return [one.objects[0].x < one.objects[1].x for one in drawn if one.relation == "next to"]

    assert all(beside(spread=0)) and len(beside(spread=0)) > 20
    assert 0.3 < sum(beside()) / len(beside()) < 0.7


def test_only_the_nouns_that_are_named_are_drawn_and_their_words_tell_which():
    nouns = ("cat", "hot dog", "chick")
    drawn = [scene_at(3, i, nouns=nouns) for i in range(200)]
    assert {placed.name for scene, _ in drawn for placed in scene.objects} == set(nouns)
    words = vocabulary(nouns).words
    assert all(unknown_words(text, words) == [] for _, text in drawn)
    assert nouns_in(words) == tuple(noun for noun in load_nouns() if noun in nouns)  # no dog, no chicken
    assert nouns_in(vocabulary().words) == tuple(load_nouns())
