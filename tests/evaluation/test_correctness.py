"""Rates of what is drawn right, and of what the checker gets wrong."""

from pathlib import Path

import numpy as np
import pytest

from tests.evaluation.stand_in import StandIn, asked, noise, renderer, suite
from unclip.evaluation.correctness import ORDER, categories, checker_error, objects
from unclip.stickers.recognition.checker import judge, see
from unclip.stickers.render import render


def rates(result: dict, column: str) -> dict[str, tuple]:
    return {row[""]: row[column] and (row[column]["rate"], row[column]["n"]) for row in result["rows"]}


def test_a_perfect_model_scores_what_the_checker_leaves_it(tmp_path: Path) -> None:
    examined = suite(tmp_path, renderer(asked()))
    error, found = checker_error(examined), objects(examined)
    assert [row[""] for row in found["rows"]] == list(ORDER)
    assert rates(found, "right") == rates(error, "right ones accepted")
    told = rates(found, "right")
    assert told["everything asked for"] == (1.0, 6) and told["counting"] == told["position"] == (1.0, 2)
    wrong = [value for value in rates(error, "wrong ones accepted").values() if value is not None]
    assert len(wrong) >= 6 and all(share == 0 for share, _ in wrong)
    assert all(picture["right"] and "?" not in picture["seen"] for picture in found["pictures"])


def test_noise_scores_at_chance(tmp_path: Path) -> None:
    found = objects(suite(tmp_path, StandIn(noise, asked(1)), n=1))
    assert all(value is None or value[0] == 0 for value in rates(found, "right").values())


def test_pictures_are_kept_and_not_drawn_twice(tmp_path: Path) -> None:
    model = renderer(asked())
    first = objects(suite(tmp_path, model))
    suite(tmp_path, model).picture(4).unlink()  # as if it had been stopped there
    assert model.drawn == 6
    assert objects(suite(tmp_path, model)) == first
    assert model.drawn == 7


@pytest.mark.parametrize("place", range(6))
def test_a_spoiled_request_is_wrong_in_one_thing(place: int) -> None:
    scene = list(asked().values())[place]
    seen = see(render(scene, 64))
    for category in categories(scene):
        spoiled = judge(seen, category.spoiled(scene, np.random.default_rng(0)))
        failed = {other.name for other in categories(scene) if not other.passed(spoiled)}
        follows = {"everything asked for"}
        if category.name in ("two objects", "everything asked for", "single object"):  # what hangs on the object
            follows |= {"position", "small or large", "two objects", "single object", "counting"}
        assert category.name in failed and failed <= {category.name, *follows}
