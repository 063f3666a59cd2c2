"""Which settings an evaluation chooses."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.evaluation.stand_in import StandIn, asked, blank, suite
from unclip.evaluation.sweeps import best, choice, prior_steps, steps
from unclip.requests.request import Request
from unclip.stickers.render import render


@pytest.mark.parametrize(
    ("rates", "each", "of_all"),
    [
        ({"a": {5: 0.5, 10: 0.995, 250: 1.0}}, {"a": 10}, ("a", 10)),
        ({"a": {5: 0.5, 10: 0.98, 250: 1.0}}, {"a": 250}, ("a", 250)),
        ({"a": {5: 0.99, 250: 0.9}}, {"a": 5}, ("a", 5)),  # better than the most
        ({"a": {5: 0.5, 250: 0.5}, "b": {5: 0.1, 250: 0.9}}, {"a": 5, "b": 250}, ("b", 250)),  # a is not near b
        ({"a": {5: 0.9, 250: 0.9}, "b": {5: 0.91, 250: 0.9}}, {"a": 5, "b": 5}, ("b", 5)),
        ({"a": {5: 0.9, 250: 0.9}, "b": {5: 0.9, 250: 0.9}}, {"a": 5, "b": 5}, ("a", 5)),
        ({"a": {5: 0.0, 250: 0.0}}, {"a": None}, (None, None)),  # nothing is not within 1% of nothing
    ],
)
def test_the_fewest_steps_within_a_hundredth(rates: dict, each: dict, of_all: tuple) -> None:
    found = choice(rates)
    assert found["steps"] == each
    assert (found["sampler"], found["of_all"]) == of_all


def clear_from(least: int):
    """A model that draws nothing below so many steps."""
    scenes = asked(1)

    def paint(request: Request) -> Image.Image:
        enough = request.steps >= least * (2 if request.sampler == "ddpm" else 1)
        return Image.fromarray(render(scenes[request.prompt], 64)) if enough else blank(request)

    return StandIn(paint, scenes)


def test_steps_are_chosen_by_the_pictures(tmp_path: Path) -> None:
    model = clear_from(10)
    examined = suite(tmp_path, model, n=1, steps=(5, 10, 20), samplers=("ddpm", "ddim"))
    found = steps(examined)
    assert found["choice"] == {"steps": {"ddpm": 20, "ddim": 10}, "sampler": "ddim", "of_all": 10}
    assert [row["right"]["rate"] for row in found["rows"]] == [0, 0, 1, 0, 1, 1, 0]  # the last: 7 steps, its own
    assert "of all samplers: ddim, 10 steps" in found["notes"][0] and "larger --n" in found["notes"][3]
    assert found["notes"][1] == "the defaults: 0.0%; the best sampler in 20 steps: 100.0%"
    assert found["notes"][2].startswith("the defaults less ddim, 20 steps, prompt by prompt: -100.0% (")
    assert model.drawn == 7
    again = suite(tmp_path, clear_from(1), n=1, steps=(5, 10, 20), samplers=("ddpm", "ddim"))
    assert steps(again) == found and again.pipe.drawn == 0  # each cell was kept


def test_steps_of_the_prior_are_chosen_by_their_cosine(tmp_path: Path) -> None:
    class Prior(StandIn):
        def imagine(self, text, negative, noise, request: Request):
            error = 0.4 * torch.ones_like(text.embed) / request.prior_steps * (1 + (request.prior_sampler == "ddpm"))
            return text.embed + error

    scenes = asked()
    examined = suite(tmp_path, Prior(blank, scenes), steps=(1, 8, 64), samplers=("ddpm", "ddim"))
    found = prior_steps(examined)
    true = examined.embed_text(list(scenes)[:2])
    wanted = [
        torch.cosine_similarity(true + 0.4 * error, true).mean().item()
        for error in (2, 1 / 4, 1 / 32, 1, 1 / 8, 1 / 64)
    ]
    assert [row["cosine to the true embedding"]["mean"] for row in found["rows"]] == pytest.approx(wanted, abs=1e-6)
    assert wanted[1] < 0.99 < wanted[4] and found["choice"]["of_all"] == 8 and found["choice"]["sampler"] == "ddim"


def test_the_best_of_several_by_its_score(tmp_path: Path) -> None:
    scenes = asked(1)
    picture = {prompt: Image.fromarray(render(scene, 64)) for prompt, scene in scenes.items()}
    model = StandIn(lambda request: picture[request.prompt] if request.seed % 4 == 1 else blank(request), scenes)
    found = {row[""]: row["right"]["rate"] for row in best(suite(tmp_path, model, n=1))["rows"]}
    assert [found[f"pictures, best of {k}"] for k in (1, 2, 4)] == [0, 1, 1]
    assert [found[f"prior's samples, best of {k}"] for k in (1, 2, 4)] == [0, 0, 0]  # this one's prior changes nothing
