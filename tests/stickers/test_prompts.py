"""Evaluation prompts."""

from collections import Counter

import pytest

from unclip.errors import DataError
from unclip.stickers.captions import canonical_caption
from unclip.stickers.compose import is_held_out
from unclip.stickers.prompts import sample_prompts


def test_prompts_are_repeatable_and_of_the_split() -> None:
    prompts = sample_prompts(24, seed=0)
    assert prompts == sample_prompts(24, seed=0) and prompts != sample_prompts(36, seed=1)
    assert Counter(scene.kind for _, scene in prompts) == {"single": 8, "pair": 8, "count": 8}
    assert all(is_held_out(scene) and text == canonical_caption(scene) for text, scene in prompts)
    trained = sample_prompts(5, seed=3, kinds=("pair",), split="train")
    assert all(scene.kind == "pair" and not is_held_out(scene) for _, scene in trained)


def test_prompts_of_some_nouns_only() -> None:
    prompts = sample_prompts(30, seed=0, split="train", nouns=("cat", "dog", "fox"))
    assert {placed.name for _, scene in prompts for placed in scene.objects} == {"cat", "dog", "fox"}


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(DataError, match="no kind 'triple'; known: single, pair, count"):
        sample_prompts(1, seed=0, kinds=("triple",))
    with pytest.raises(DataError, match="kinds is empty; known: single, pair, count"):
        sample_prompts(1, seed=0, kinds=())
