"""`unclip sweep`, with a stand-in for the pipeline; the axes and the grid have their own tests."""

import html
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.batch.fake_pipeline import FakePipeline
from unclip.cli.main import main
from unclip.images import metadata

INDEX = {"name": "fake", "stages": {"decoder": {"size": [8, 8]}, "upsampler": {"size": [16, 16]}}}


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> FakePipeline:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model_index.json").write_text(json.dumps(INDEX))
    pipeline = FakePipeline()
    unclip = SimpleNamespace(from_pretrained=lambda name, **options: pipeline)
    monkeypatch.setitem(sys.modules, "unclip.pipeline", SimpleNamespace(Unclip=unclip))
    return pipeline


@pytest.fixture
def call(pipeline, capsys):
    """call(*arguments) -> (exit code, output, errors) of `unclip sweep`, with the model "m"."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["sweep", *arguments, "--model", "m"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def requests(folder: str = "sweep") -> list[dict]:
    lines = Path(folder, "manifest.jsonl").read_text().splitlines()
    return [json.loads(line)["request"] for line in lines]


TWO = ("--vary", "guidance=1,2,3", "--vary", "steps=4,8")


def test_every_combination_once_with_one_seed(call, pipeline):
    code, out, err = call("a cat", *TWO)
    assert code == 0 and len(out.splitlines()) == 6
    made = requests()
    assert [(one["guidance"], one["steps"]) for one in made] == [(g, s) for g in (1, 2, 3) for s in (4, 8)]
    assert len({one["seed"] for one in made}) == 1
    lines = err.splitlines()
    assert re.fullmatch(r"unclip: 6 images; the grid has 3 columns x 2 rows, \d+x\d+ pixels", lines[0])
    assert lines[-2:] == ["unclip: the grid is sweep/grid.png", "unclip: the page is sweep/grid.html"]
    with Image.open("sweep/grid.png") as grid:
        assert grid.size[0] > 3 * 8 and grid.size[1] > 2 * 8


def test_the_plan_comes_before_the_first_image(call, pipeline):
    code, out, _ = call("a cat", *TWO, "--json", "--seed", "3")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [event["event"] for event in events] == [
        *("sweep", "start"), *["image"] * 6, "end", "grid", "grid"
    ]  # fmt: skip
    axes = {"guidance": ["1.0", "2.0", "3.0"], "steps": ["4", "8"]}
    plan = {name: value for name, value in events[0].items() if name != "grid"}
    assert plan == {"event": "sweep", "images": 6, "axes": axes, "columns": 3, "rows": 2, "panels": 1}
    assert re.fullmatch(r"\d+x\d+", events[0]["grid"])


def test_a_dry_run_makes_nothing(call, pipeline, tmp_path):
    code, out, err = call("a cat", *TWO, "--dry-run")
    assert code == 0 and "images  6" in out and "6 images; the grid has 3 columns x 2 rows" in err
    assert pipeline.generated == [] and not (tmp_path / "sweep").exists()


def test_the_same_command_again_makes_nothing_and_more_values_only_those(call, pipeline):
    assert call("a cat", *TWO)[0] == 0
    before = {path: path.read_bytes() for path in Path("sweep").glob("*.png") if path.name != "grid.png"}
    pipeline.generated.clear()
    assert call("a cat", *TWO)[0] == 0 and pipeline.generated == []
    assert call("a cat", "--vary", "guidance=1,2,3,4", "--vary", "steps=4,8")[0] == 0
    assert len(pipeline.generated) == 2
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in Path("sweep").glob("grid*")) == ["grid.html", "grid.png"]
    assert Path("sweep/grid.html").read_text().count("<figure") == 8


def test_several_prompts_and_seeds_are_axes(call, pipeline):
    code, _, err = call("a cat", "a dog", "--vary", "seed=1..2", "--vary", "steps=4,8", "--set", "prior_best_of=2")
    assert code == 0 and "8 images; the grid has 2 columns x 2 rows x 2 panels" in err
    assert {(one["seed"], one["steps"], one["prompt"], one["prior_best_of"]) for one in requests()} == {
        (seed, steps, prompt, 2) for seed in (1, 2) for steps in (4, 8) for prompt in ("a cat", "a dog")
    }


def test_the_page_has_every_image_with_its_values(call, pipeline):
    assert call("a <b>cat</b> & co", *TWO, "--vary", "sampler=ddim,unipc", "--seed", "3")[0] == 0
    page = Path("sweep/grid.html").read_text()
    assert "<b>" not in page and "a &lt;b&gt;cat&lt;/b&gt; &amp; co" in page
    figures = re.findall(r'<figure data-at="([\d,]+)"><a href="([^"]+)"><img src="([^"]+)" alt="([^"]+)"', page)
    assert len(figures) == 12 and {at for at, *_ in figures} == {
        f"{g},{s},{p}" for g in range(3) for s in range(2) for p in range(2)
    }
    for at, link, source, text in figures:
        request = metadata.read(Path("sweep") / link)["request"]
        g, s, p = map(int, at.split(","))
        assert link == source and (request["guidance"], request["steps"]) == ((1, 2, 3)[g], (4, 8)[s])
        assert request["sampler"] == ("ddim", "unipc")[p]
        values = f"guidance {request['guidance']}, steps {request['steps']}, sampler {request['sampler']}, seed 3"
        assert html.unescape(text).startswith(values)
    order = [at for at, *_ in figures]  # panel, row, column
    assert order == sorted(order, key=lambda at: (at[4], at[2], at[0]))
    assert json.loads(re.search(r'id="axes">(.*?)</script>', page)[1])[2] == {
        "field": "sampler", "labels": ["ddim", "unipc"]
    }  # fmt: skip
    assert page.count("<h2>sampler ") == 2 and "http" not in page


def test_a_combination_that_fails_is_an_empty_cell(call, pipeline):
    code, _, err = call("a cat", "a bad dog", "--vary", "steps=4,8", "--seed", "1")
    assert code == 1 and "2 failed" in err
    assert Path("sweep/grid.html").read_text().count("<figure") == 2
    with Image.open("sweep/grid.png") as grid:
        assert (192, 192, 192) in {colour for _, colour in grid.getcolors(1 << 16)}  # crossed out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a cat"], "give --vary FIELD=A,B"),
        (["a cat", "--vary", "steps=4", "--vary", "steps=8"], "it is varied twice"),
        (["a cat", "--vary", "steps=4,8", "--steps", "3"], "a single value too"),
        (["a cat", "--vary", "seed=4,8", "--seed", "3"], "a single value too"),
        (["a cat", "a dog", "--vary", "prompt=x|y"], "it is varied twice"),
        (["a cat", "a cat"], "a prompt is given twice"),
        (["a cat", "--vary", "stps=4"], "did you mean 'steps'?"),
        (["a cat", "--vary", "seed=1..1000", "--vary", "steps=1..1000"], "1,000,000 images"),
        (["a cat", *TWO, "-o", "m/model_index.json"], "give another folder"),
        (["a cat", "--vary", "seed=1..50000"], "50,000 images do not fit on one grid"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(call, tmp_path, arguments, says):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert not (tmp_path / "sweep").exists()


def test_files_of_the_user_stay(call, pipeline):
    Path("sweep").mkdir()
    for name in ("grid.html", "grid.png"):
        Path("sweep", name).write_text("mine")
    assert call("a cat", "--vary", "steps=4,8")[0] == 0
    assert Path("sweep/grid.html").read_text() == Path("sweep/grid.png").read_text() == "mine"
    assert Path("sweep/grid-2.html").exists() and Path("sweep/grid-2.png").exists()


def test_the_axes_can_be_exchanged_in_a_browser(call, pipeline, tmp_path):
    pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    from tests.server.canvas_page import PROGRAM

    if PROGRAM is None:
        pytest.skip("needs a browser")
    assert call("a cat", *TWO, "--vary", "sampler=ddim,unipc", "--seed", "3")[0] == 0
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1600, "height": 4000})  # all images are in view, and load
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto((tmp_path / "sweep" / "grid.html").as_uri())

        def rows() -> list[list[str]]:
            return page.eval_on_selector_all(
                "table",
                "all => all.flatMap(table => [...table.rows].slice(1).map(row => "
                "[...row.querySelectorAll('figure')].map(figure => figure.dataset.at)))",
            )

        assert rows() == [[f"{g},{s},{p}" for g in range(3)] for p in range(2) for s in range(2)]
        page.get_by_label("columns").select_option("sampler")
        assert rows() == [[f"{g},{s},{p}" for p in range(2)] for g in range(3) for s in range(2)]
        page.get_by_label("rows").select_option("none")
        assert rows() == [[f"{g},{s},{p}" for p in range(2)] for g in range(3) for s in range(2)]
        page.get_by_label("rows").select_option("guidance")
        assert rows() == [[f"{g},{s},{p}" for p in range(2)] for s in range(2) for g in range(3)]
        assert page.locator("img").count() == 12 and page.locator("h2").all_text_contents() == ["steps 4", "steps 8"]
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 8)")
        browser.close()
    assert problems == []
