"""The settings that sweeps choose."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.evaluation.stand_ins import StandIn, blank_image, new_suite, suite_scenes
from unclip.evaluation.sweeps import choose_steps, sweep_best_of, sweep_prior_steps, sweep_steps
from unclip.requests.request import Request
from unclip.stickers.render import render


@pytest.mark.parametrize(
    ("rates", "each", "of_all"),
    [
        ({"a": {5: 0.5, 10: 0.995, 250: 1.0}}, {"a": 10}, ("a", 10)),
        ({"a": {5: 0.5, 10: 0.98, 250: 1.0}}, {"a": 250}, ("a", 250)),
        ({"a": {5: 0.99, 250: 0.9}}, {"a": 5}, ("a", 5)),  # better than with the most steps
        ({"a": {5: 0.5, 250: 0.5}, "b": {5: 0.1, 250: 0.9}}, {"a": 5, "b": 250}, ("b", 250)),  # a is not near b
        ({"a": {5: 0.9, 250: 0.9}, "b": {5: 0.91, 250: 0.9}}, {"a": 5, "b": 5}, ("b", 5)),
        ({"a": {5: 0.9, 250: 0.9}, "b": {5: 0.9, 250: 0.9}}, {"a": 5, "b": 5}, ("a", 5)),
        ({"a": {5: 0.0, 250: 0.0}}, {"a": None}, (None, None)),  # zero is not within 1% of zero
    ],
)
def test_the_fewest_steps_within_one_percent(rates: dict, each: dict, of_all: tuple) -> None:
    found = choose_steps(rates)
    assert found["steps"] == each
    assert (found["sampler"], found["of_all"]) == of_all


def perfect_from(least: int) -> StandIn:
    """Return a model that is perfect from this number of steps on, twice as many for ddpm, and blank below."""
    scenes = suite_scenes(1)

    def generate(request: Request) -> Image.Image:
        enough = request.steps >= least * (2 if request.sampler == "ddpm" else 1)
        return Image.fromarray(render(scenes[request.prompt], 64)) if enough else blank_image(request)

    return StandIn(generate, scenes)


def test_steps_are_chosen_by_the_images(tmp_path: Path) -> None:
    model = perfect_from(10)
    suite = new_suite(tmp_path, model, n=1, steps=(5, 10, 20), samplers=("ddpm", "ddim"))
    found = sweep_steps(suite)
    assert found["choice"] == {"steps": {"ddpm": 20, "ddim": 10}, "sampler": "ddim", "of_all": 10}
    assert [row["right"]["rate"] for row in found["rows"]] == [0, 0, 1, 0, 1, 1, 0]  # the last: the default 7 steps
    assert "of all samplers: ddim, 10 steps" in found["notes"][0] and "larger --n" in found["notes"][3]
    assert found["notes"][1] == "the defaults: 0.0%; the best sampler in 20 steps: 100.0%"
    assert found["notes"][2].startswith("the defaults minus ddim, 20 steps, prompt by prompt: -100.0% (")
    assert model.generated == 7
    again = new_suite(tmp_path, perfect_from(1), n=1, steps=(5, 10, 20), samplers=("ddpm", "ddim"))
    assert sweep_steps(again) == found and again.pipe.generated == 0  # every cell was stored


def test_steps_of_the_prior_are_chosen_by_the_cosine(tmp_path: Path) -> None:
    class Prior(StandIn):
        def sample_prior(self, text, negative, run):
            slow = 1 + (run.options.prior_sampler == "ddpm")
            error = 0.4 * torch.ones_like(text.embed) / run.options.prior_steps * slow
            return text.embed + error

    scenes = suite_scenes()
    suite = new_suite(tmp_path, Prior(blank_image, scenes), steps=(1, 8, 64), samplers=("ddpm", "ddim"))
    found = sweep_prior_steps(suite)
    true = suite.embed_text(list(scenes)[:2])
    expected = [
        torch.cosine_similarity(true + 0.4 * error, true).mean().item()
        for error in (2, 1 / 4, 1 / 32, 1, 1 / 8, 1 / 64)
    ]
    assert [row["cosine to the true embedding"]["mean"] for row in found["rows"]] == pytest.approx(expected, abs=1e-6)
    assert expected[1] < 0.99 < expected[4] and found["choice"]["of_all"] == 8 and found["choice"]["sampler"] == "ddim"


def test_best_of_k_chooses_by_the_score(tmp_path: Path) -> None:
    scenes = suite_scenes(1)
    images = {prompt: Image.fromarray(render(scene, 64)) for prompt, scene in scenes.items()}
    model = StandIn(lambda request: images[request.prompt] if request.seed % 4 == 1 else blank_image(request), scenes)
    found = {row[""]: row["right"]["rate"] for row in sweep_best_of(new_suite(tmp_path, model, n=1))["rows"]}
    assert [found[f"images, best of {k}"] for k in (1, 2, 4)] == [0, 1, 1]
    assert [found[f"prior's samples, best of {k}"] for k in (1, 2, 4)] == [0, 0, 0]  # this model ignores its prior
