"""The report: stored part by part, printed as text and as an HTML page."""

import json
import re
from pathlib import Path

import pytest

from tests.evaluation.stand_ins import StandIn, blank_image, new_suite, perfect_model, suite_scenes
from unclip.errors import InputError
from unclip.evaluation.html_report import choose_samples
from unclip.evaluation.intervals import estimate_mean, estimate_rate
from unclip.evaluation.measures import measure_parts, select_parts
from unclip.evaluation.report import Report, format_result, format_table


def test_results_are_stored(tmp_path: Path) -> None:
    report = Report(tmp_path, {"n": 2, "size": (64, 64)})
    assert report.measure_once("a", lambda: {"x": (1, float("nan"))}) == {"x": [1, None]}
    with pytest.raises(ZeroDivisionError):
        report.measure_once("b", lambda: 1 / 0)
    again = Report(tmp_path, {"n": 2, "size": (64, 64)})
    assert again.measure_once("a", lambda: pytest.fail("measured again")) == {"x": [1, None]}
    assert again.measure_once("b", lambda: 3) == 3
    assert json.loads((tmp_path / "report.json").read_text())["results"] == {"a": {"x": [1, None]}, "b": 3}


def test_a_report_of_another_setup_is_refused(tmp_path: Path) -> None:
    Report(tmp_path, {"n": 2, "seed": 0})
    with pytest.raises(InputError, match=r"is a report with seed 0, not 1: choose another folder"):
        Report(tmp_path, {"n": 2, "seed": 1})
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"report.json is not a report: choose another folder"):
        Report(tmp_path, {"n": 2, "seed": 0})


def test_images_without_a_report_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match="^.*pictures has images of a report that no longer exists: choose"):
        Report(tmp_path, {"n": 2})


def test_a_table_has_a_column_for_every_key() -> None:
    rows = [
        {"": "cats", "right": estimate_rate([True, False])},
        {"": "a", "score": estimate_mean([1.0, 2.0, 3.0]), "n": 3},
    ]
    assert format_table(rows).splitlines() == [
        f"  {'':4}  {'right':30}  score    n",
        f"  cats  {' 50.0%  (9.5% to 90.5%, n = 2)':30}  -        -",
        f"  a     {'-':30}  2 ± 1.1  3",
    ]
    assert format_result("Cats", {"rows": rows[1:], "notes": ["so they are"]}).splitlines()[-1] == "  so they are"


def test_samples_are_chosen_by_the_seed_alone() -> None:
    found = choose_samples(range(100), 10, seed=3)
    assert len(set(found)) == 10 and set(found) <= set(range(100)) and found == choose_samples(range(100), 10, seed=3)
    assert found != choose_samples(range(100), 10, seed=4) and found != list(range(10))
    assert choose_samples([4, 7], 10, seed=0) == [4, 7] and choose_samples([], 10, seed=0) == []


def test_the_html_page_shows_correct_and_wrong_images_and_is_self_contained(tmp_path: Path) -> None:
    scenes = suite_scenes(1)
    first = next(iter(scenes))
    model = StandIn(lambda r: perfect_model(scenes).generate(r) if r.prompt == first else blank_image(r), scenes)
    suite = new_suite(tmp_path, model, n=1)
    assert len(list(measure_parts(suite, ["checker", "objects"]))) == 2
    page = suite.html_path.read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[-3:] == [
        "Random samples of all images: 3 of 3",
        "Random samples of the correct ones: 1 of 1",
        "Random samples of the wrong ones: 2 of 2",
    ]
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert sources == ["data:image/webp;base64"] * 6
    assert page.count(f"<figcaption>{first}<") == 2 and page.count("wrong: ") == 4


def test_parts_that_a_model_does_not_support(tmp_path: Path) -> None:
    model = perfect_model(suite_scenes(1))
    assert "upsampler" not in select_parts(model, None) and "clip" in select_parts(model, None)
    with pytest.raises(InputError, match="^the part 'upsampler' needs a model with an upsampler, which stand-in lacks"):
        select_parts(model, ["upsampler"])
    assert select_parts(model, ["steps"]) == ["checker", "steps"]  # whose error is reported first
    assert select_parts(model, ["clip"]) == ["clip"]
