"""Captions and their grammar."""

import re
from collections.abc import Iterable

import numpy as np
import pytest

from tests.stickers.conftest import CaptionedScenes
from unclip.requests.vocabulary import unknown_words, words_of
from unclip.stickers.captions import canonical_caption, coloured_nouns, nouns_in, random_caption, vocabulary
from unclip.stickers.compose import SceneOptions
from unclip.stickers.scene import BACKGROUNDS, COUNTS, RELATIONS, SIZE_WORDS, PlacedObject, Scene
from unclip.stickers.sprites import load_nouns
from unclip.stickers.stream import scene_at


def mentions(text: str, phrases: Iterable[str]) -> bool:
    return any(re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text.lower()) for phrase in phrases)


def test_captions_are_true(scenes: CaptionedScenes) -> None:
    nouns, known = load_nouns(), vocabulary()
    backgrounds = 0
    for scene, text in scenes:
        for placed in scene.objects:
            noun = nouns[placed.name]
            singular, plural = (noun.name, *noun.synonyms), (noun.plural, *noun.synonym_plurals)
            assert mentions(text, plural if scene.kind == "count" else singular), (scene, text)
        if scene.count is not None:
            assert mentions(text, known.counts[scene.count]), text
        if scene.size_word is not None:
            assert mentions(text, known.size_words[scene.size_word]), text
        backgrounds += mentions(text, known.colours[scene.background])
        assert len(text.split()) <= 22, text
    assert 0.82 < backgrounds / len(scenes) < 0.95


def test_captions_use_only_the_vocabulary(scenes: CaptionedScenes) -> None:
    for _, text in scenes:
        assert unknown_words(text, vocabulary().words) == [], text
        assert not re.search(r"\ba [aeio]|\ban [^aeiouh]|  |[{}]", text.lower()), text
    assert set(vocabulary().colours) == set(BACKGROUNDS)
    assert set(vocabulary().relations) == set(RELATIONS)
    assert set(vocabulary().counts) == set(COUNTS)
    assert set(vocabulary().size_words) == set(SIZE_WORDS)


def test_captions_of_pairs_keep_the_order() -> None:
    scene = Scene(
        (PlacedObject("cat", 0.25, 0.5, 0.4), PlacedObject("car", 0.75, 0.5, 0.4)), "green", "pair", "left of"
    )
    rng = np.random.default_rng(0)
    texts = {random_caption(scene, rng).lower() for _ in range(400)}
    assert any(text.startswith("a cat to the left of a car") for text in texts)
    assert any("a cat on the left and a car on the right" in text for text in texts)
    for text in texts:
        cat = re.search(r"cat|kitten|kitty", text).start()
        car = re.search(r"\bcar\b|automobile", text).start()
        cat_is_first = "on the right and" not in text
        assert (cat < car) == cat_is_first, text
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
def test_canonical_captions(objects: list[str], fields: dict, text: str) -> None:
    scene = Scene(tuple(PlacedObject(name, 0.5, 0.5, 0.3) for name in objects), "pink", **fields)
    assert canonical_caption(scene) == text


def test_objects_with_a_colour(scenes: CaptionedScenes) -> None:
    known = vocabulary().words
    text = "A Red cat and two orange  dogs, a grey top hat and an orange"
    assert coloured_nouns(text, known) == ["red cat", "orange dogs", "grey top hat"]
    assert coloured_nouns(text, known - {"dogs"}) == ["red cat", "grey top hat"]
    assert not any(coloured_nouns(caption, known) for _, caption in scenes)


def test_the_words_of_a_vocabulary_tell_its_nouns() -> None:
    nouns = ("cat", "hot dog", "chick")
    assert nouns_in(vocabulary(nouns).words) == tuple(noun for noun in load_nouns() if noun in nouns)  # no dog
    assert nouns_in(vocabulary().words) == tuple(load_nouns())


def test_captions_mention_the_style_only_where_there_are_several() -> None:
    drawn = [scene_at(3, i, SceneOptions(styles=("flat", "cartoon"))) for i in range(400)]
    cartoons = [text for scene, text in drawn if scene.style == "cartoon"]
    assert 150 < len(cartoons) < 250
    assert 0.4 < sum("cartoon" in text for text in cartoons) / len(cartoons) < 0.8
    assert not any("cartoon" in text for scene, text in drawn if scene.style == "flat")
    assert not any("flat" in scene_at(3, i, SceneOptions(styles=("flat",)))[1] for i in range(100))
    known = vocabulary(styles=("flat", "cartoon")).words
    assert all(set(words_of(text)) <= known for _, text in drawn)
    assert known - vocabulary().words == {"flat", "cartoon"}
    scene = Scene((PlacedObject("apple", 0.5, 0.5, 0.3),), "pink", "single", size_word="small", style="cartoon")
    assert canonical_caption(scene, names_style=True) == "a small cartoon apple on a pink background"
    assert canonical_caption(scene) == "a small apple on a pink background"
