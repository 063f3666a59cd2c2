"""Rates of correct images, and of the checker's errors."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.stand_ins import StandIn, new_suite, noise_image, perfect_model, suite_scenes
from unclip.evaluation.correctness import ORDER, categories, measure_checker, measure_objects
from unclip.stickers.recognition.checker import detect, judge
from unclip.stickers.render import render


def rates(result: dict, column: str) -> dict[str, tuple]:
    return {row[""]: row[column] and (row[column]["rate"], row[column]["n"]) for row in result["rows"]}


def test_a_perfect_model_scores_what_the_checker_accepts(tmp_path: Path) -> None:
    suite = new_suite(tmp_path, perfect_model(suite_scenes()))
    error, found = measure_checker(suite), measure_objects(suite)
    assert [row[""] for row in found["rows"]] == list(ORDER)
    assert rates(found, "right") == rates(error, "right ones accepted")
    correct = rates(found, "right")
    assert correct["everything asked for"] == (1.0, 6) and correct["counting"] == correct["position"] == (1.0, 2)
    wrong = [value for value in rates(error, "wrong ones accepted").values() if value is not None]
    assert len(wrong) >= 6 and all(rate == 0 for rate, _ in wrong)
    assert all(image["right"] and "?" not in image["seen"] for image in found["pictures"])


def test_noise_scores_at_chance(tmp_path: Path) -> None:
    found = measure_objects(new_suite(tmp_path, StandIn(noise_image, suite_scenes(1)), n=1))
    assert all(value is None or value[0] == 0 for value in rates(found, "right").values())


def test_images_are_stored_and_not_generated_twice(tmp_path: Path) -> None:
    model = perfect_model(suite_scenes())
    first = measure_objects(new_suite(tmp_path, model))
    new_suite(tmp_path, model).image_path(4).unlink()  # as if the run had stopped there
    assert model.generated == 6
    assert measure_objects(new_suite(tmp_path, model)) == first
    assert model.generated == 7


@pytest.mark.parametrize("place", range(6))
def test_a_falsified_scene_differs_in_one_property(place: int) -> None:
    scene = list(suite_scenes().values())[place]
    detection = detect(render(scene, 64))
    for category in categories(scene):
        falsified = judge(detection, category.falsify(scene, np.random.default_rng(0)))
        failed = {other.name for other in categories(scene) if not other.passes(falsified)}
        implied = {"everything asked for"}
        if category.name in ("two objects", "everything asked for", "single object"):  # these depend on the object
            implied |= {"position", "small or large", "two objects", "single object", "counting"}
        assert category.name in failed and failed <= {category.name, *implied}
