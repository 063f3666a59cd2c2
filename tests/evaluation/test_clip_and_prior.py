"""Measures of CLIP and of the prior, on towers whose quality is known."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluation.stand_in import StandIn, asked, features, renderer, suite
from unclip.evaluation.clip_and_prior import clip, distinct, imagined, nouns_alone, prior, rank_1
from unclip.pipeline import Unclip
from unclip.stickers.sprites import load_nouns

NOUNS = len(load_nouns())


def known() -> dict:
    """All that a suite of one prompt a kind shows to CLIP."""
    return asked(1) | dict(distinct(100, 2, "held_out")) | dict(nouns_alone())


def values(found: dict) -> dict[str, float]:
    return {row[""]: row["value"].get("rate", row["value"].get("mean")) for row in found["rows"]}


def test_rank_1_is_told_both_ways() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    answers = torch.tensor([[2.0, 0.1], [0.5, 0.5], [0.0, 0.1]])
    assert rank_1(queries, answers) == [True, False, False]
    assert rank_1(answers, queries) == [True, False, False]


def test_scenes_to_choose_from_are_not_there_twice() -> None:
    found = distinct(100, 0, "held_out")
    assert len(dict(found)) == len(found) == 100
    assert len(dict(nouns_alone())) == NOUNS


def test_a_clip_that_sees_all_tells_all_apart(tmp_path: Path) -> None:
    found = values(clip(suite(tmp_path, renderer(known()), n=1)))
    assert found["score, drawn pictures and their prompts"] == pytest.approx(1)
    assert found["score, real pictures and the next prompt"] < 0.99
    assert [value for name, value in found.items() if "retrieval" in name] == [1, 1, 1, 1]


def test_a_clip_that_sees_the_background_alone_is_found_out(tmp_path: Path) -> None:
    def corner(image: Image.Image) -> Tensor:
        return features(image)[:3]

    scenes = known()
    found = values(clip(suite(tmp_path, StandIn(renderer(scenes).paint, scenes, look=corner), n=1)))
    assert found["retrieval, nouns alone: rank 1, text to image"] == pytest.approx(1 / NOUNS)
    assert found["retrieval, nouns alone: rank 1, image to text"] == pytest.approx(1 / NOUNS)
    assert found["retrieval among 100: rank 1, text to image"] <= 0.12  # a scene of each background
    assert found["score, drawn pictures and their prompts"] == pytest.approx(1)  # which says nothing of it


def test_a_perfect_prior(tmp_path: Path) -> None:
    rows = prior(suite(tmp_path, renderer(asked())))["rows"]
    assert [row[""] for row in rows] == ["text embedding", *(f"prior, best of {k}" for k in (1, 2, 4))]
    assert [row["cosine to the true embedding"]["mean"] for row in rows] == pytest.approx([1] * 4)
    assert [row["nearest is the true one"]["rate"] for row in rows] == [1] * 4


def test_the_prior_draws_a_prompt_alike_in_any_batch(tmp_path: Path, tiny_model: Path) -> None:
    pipe = Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32")
    examined = suite(tmp_path, pipe, n=3)
    together = imagined(examined, examined.mixed, prior_steps=2)
    assert together.shape == (3, 16)
    one_by_one = suite(tmp_path, pipe, n=3, batch_size=1)
    assert torch.allclose(imagined(one_by_one, one_by_one.mixed, prior_steps=2), together, atol=1e-5)
