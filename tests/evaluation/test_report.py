"""A report: kept part by part, told in text and on a page."""

import json
import re
from pathlib import Path

import pytest

from tests.evaluation.stand_in import StandIn, asked, blank, renderer, suite
from unclip.errors import InputError
from unclip.evaluation.html_report import at_random
from unclip.evaluation.intervals import mean, rate
from unclip.evaluation.measures import chosen, run
from unclip.evaluation.report import Report, table, told


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    report = Report(tmp_path, {"n": 2, "size": (64, 64)})
    assert report.once("a", lambda: {"x": (1, float("nan"))}) == {"x": [1, None]}
    with pytest.raises(ZeroDivisionError):
        report.once("b", lambda: 1 / 0)
    again = Report(tmp_path, {"n": 2, "size": (64, 64)})
    assert again.once("a", lambda: pytest.fail("measured again")) == {"x": [1, None]}
    assert again.once("b", lambda: 3) == 3
    assert json.loads((tmp_path / "report.json").read_text())["results"] == {"a": {"x": [1, None]}, "b": 3}


def test_a_report_of_something_else_is_not_added_to(tmp_path: Path) -> None:
    Report(tmp_path, {"n": 2, "seed": 0})
    with pytest.raises(InputError, match=r"is a report with seed 0, not 1: choose another folder"):
        Report(tmp_path, {"n": 2, "seed": 1})
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"report.json is no report: choose another folder"):
        Report(tmp_path, {"n": 2, "seed": 0})


def test_pictures_of_nobody_knows_what_are_not_judged(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(InputError, match="^.*pictures is of a report that is gone: choose another folder"):
        Report(tmp_path, {"n": 2})


def test_a_table_has_a_column_for_every_name() -> None:
    rows = [{"": "cats", "right": rate([True, False])}, {"": "a", "score": mean([1.0, 2.0, 3.0]), "n": 3}]
    assert table(rows).splitlines() == [
        f"  {'':4}  {'right':30}  score    n",
        f"  cats  {' 50.0%  (9.5% to 90.5%, n = 2)':30}  -        -",
        f"  a     {'-':30}  2 ± 1.1  3",
    ]
    assert told("Cats", {"rows": rows[1:], "notes": ["so they are"]}).splitlines()[-1] == "  so they are"


def test_pictures_are_drawn_at_random_by_the_seed_alone() -> None:
    found = at_random(range(100), 10, seed=3)
    assert len(set(found)) == 10 and set(found) <= set(range(100)) and found == at_random(range(100), 10, seed=3)
    assert found != at_random(range(100), 10, seed=4) and found != list(range(10))
    assert at_random([4, 7], 10, seed=0) == [4, 7] and at_random([], 10, seed=0) == []


def test_the_page_holds_good_and_bad_pictures_and_needs_no_other_file(tmp_path: Path) -> None:
    scenes = asked(1)
    first = next(iter(scenes))
    model = StandIn(lambda r: renderer(scenes).paint(r) if r.prompt == first else blank(r), scenes)
    examined = suite(tmp_path, model, n=1)
    assert len(list(run(examined, ["checker", "objects"]))) == 2
    page = examined.page.read_text()
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings[-3:] == [
        "Drawn at random from all: 3 of 3",
        "Drawn at random from those right in everything: 1 of 1",
        "Drawn at random from the others: 2 of 2",
    ]
    sources = re.findall(r'(?:src|href)="([^"]{0,22})', page)
    assert sources == ["data:image/webp;base64"] * 6
    assert page.count(f"<figcaption>{first}<") == 2 and page.count("wrong: ") == 4


def test_parts_that_a_model_cannot_be_measured_in(tmp_path: Path) -> None:
    model = renderer(asked(1))
    assert "upsampler" not in chosen(model, None) and "clip" in chosen(model, None)
    with pytest.raises(InputError, match="^stand-in has no upsampler, which the part 'upsampler' measures"):
        chosen(model, ["upsampler"])
    assert chosen(model, ["steps"]) == ["checker", "steps"]  # whose error is told first
    assert chosen(model, ["clip"]) == ["clip"]
