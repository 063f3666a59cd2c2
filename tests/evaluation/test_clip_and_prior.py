"""Measures of CLIP and of the prior, on models of known quality."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.evaluation.stand_ins import StandIn, new_suite, perfect_features, perfect_model, suite_scenes
from unclip.evaluation.clip_and_prior import (
    distinct_prompts,
    is_retrieved,
    measure_clip,
    measure_prior,
    prompts_of_nouns,
    sample_embeddings,
)
from unclip.pipeline import Unclip
from unclip.stickers.sprites import load_nouns

NOUNS = len(load_nouns())


def all_scenes() -> dict:
    """Return prompt -> scene of all that a suite of one prompt per kind embeds by CLIP."""
    return suite_scenes(1) | dict(distinct_prompts(100, 2, "held_out")) | dict(prompts_of_nouns())


def values(found: dict) -> dict[str, float]:
    return {row[""]: row["value"].get("rate", row["value"].get("mean")) for row in found["rows"]}


def test_retrieval_depends_on_the_direction() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    answers = torch.tensor([[2.0, 0.1], [0.5, 0.5], [0.0, 0.1]])
    assert is_retrieved(queries, answers) == [True, False, False]
    assert is_retrieved(answers, queries) == [True, False, False]


def test_retrieval_prompts_are_distinct() -> None:
    found = distinct_prompts(100, 0, "held_out")
    assert len(dict(found)) == len(found) == 100
    assert len(dict(prompts_of_nouns())) == NOUNS


def test_a_perfect_clip_retrieves_everything(tmp_path: Path) -> None:
    found = values(measure_clip(new_suite(tmp_path, perfect_model(all_scenes()), n=1)))
    assert found["score, generated images and their prompts"] == pytest.approx(1)
    assert found["score, real images and the next prompt"] < 0.99
    assert [value for name, value in found.items() if "retrieval" in name] == [1, 1, 1, 1]


def test_a_clip_blind_to_objects_is_exposed(tmp_path: Path) -> None:
    def corner(image: Image.Image) -> Tensor:
        return perfect_features(image)[:3]

    scenes = all_scenes()
    found = values(
        measure_clip(new_suite(tmp_path, StandIn(perfect_model(scenes).generate, scenes, features=corner), n=1))
    )
    assert found["retrieval, nouns alone: rank 1, text to image"] == pytest.approx(1 / NOUNS)
    assert found["retrieval, nouns alone: rank 1, image to text"] == pytest.approx(1 / NOUNS)
    assert found["retrieval among 100: rank 1, text to image"] <= 0.12  # a scene of each background
    assert found["score, generated images and their prompts"] == pytest.approx(1)  # which does not expose it


def test_a_perfect_prior(tmp_path: Path) -> None:
    rows = measure_prior(new_suite(tmp_path, perfect_model(suite_scenes())))["rows"]
    assert [row[""] for row in rows] == ["text embedding", *(f"prior, best of {k}" for k in (1, 2, 4, 8, 16))]
    assert [row["cosine to the true embedding"]["mean"] for row in rows] == pytest.approx([1] * 6)
    assert [row["nearest is the true one"]["rate"] for row in rows] == [1] * 6


def test_the_priors_samples_do_not_depend_on_the_batch(tmp_path: Path, tiny: Unclip) -> None:
    together_suite = new_suite(tmp_path, tiny, n=3)
    together = sample_embeddings(together_suite, together_suite.subset, prior_steps=2)
    assert together.shape == (3, 16)
    one_by_one = new_suite(tmp_path, tiny, n=3, batch_size=1)
    assert torch.allclose(sample_embeddings(one_by_one, one_by_one.subset, prior_steps=2), together, atol=1e-5)
