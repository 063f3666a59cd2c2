"""`unclip evaluate`: from its arguments to its report."""

import json
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.forked import forks, in_processes
from unclip.cli.main import main
from unclip.errors import InputError
from unclip.evaluation import clip_and_prior, super_resolution, sweeps
from unclip.evaluation import suite as suite_module
from unclip.evaluation.suite import Suite

PARTS = "distance,clip,prior,upsampler"  # quick with an untrained model


def evaluate(tiny_model: Path, out: Path, *more: str) -> int:
    arguments = ["--model", str(tiny_model), "--n", "1", "--only", PARTS, "--device", "cpu", "--dtype", "float32"]
    return main(["evaluate", *arguments, "-o", str(out), *more])


def test_the_same_seeds_give_the_same_report(tiny_model: Path, tmp_path: Path, capsys) -> None:
    assert evaluate(tiny_model, tmp_path / "a") == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line and line[0] != " "] == [
        "Distance of sets of images",
        "CLIP",
        "The prior",
        "Upsampling",
    ]
    assert "retrieval among 100: rank 1, text to image" in out and err.endswith("report.html\n")
    assert evaluate(tiny_model, tmp_path / "b", "--json", "--quiet") == 0
    out, err = capsys.readouterr()
    assert err == "" and json.loads(out) == json.loads((tmp_path / "b" / "report.json").read_text())
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()
    # Chance, of a model that knows nothing.
    rows = {row[""]: row["value"] for row in json.loads(out)["results"]["clip"]["rows"]}
    assert rows["retrieval among 100: rank 1, text to image"]["rate"] < 0.1


@forks
def test_two_processes_make_the_report_of_one(tiny_model: Path, tmp_path: Path, capsys) -> None:
    arguments = "--n", "2", "--batch-size", "2", "--only", "objects,best,distance,prior,upsampler"
    assert evaluate(tiny_model, tmp_path / "one", *arguments) == 0
    assert in_processes(2, lambda _: evaluate(tiny_model, tmp_path / "two", *arguments)) == [0, 0]
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert one == two and list(one["results"]) == [
        "checker",
        "objects",
        "distance",
        "prior",
        "best",
        "upsampler",
    ]
    images = [sorted(path.read_bytes() for path in (tmp_path / name / "pictures").iterdir()) for name in ("one", "two")]
    assert images[0] == images[1] and len(images[0]) == 6
    assert (tmp_path / "one" / "report.html").read_bytes() == (tmp_path / "two" / "report.html").read_bytes()


@forks
def test_an_error_of_one_process_is_reported_once(tiny_model: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    def fails(*_: object) -> None:
        raise InputError("this process cannot")

    def run(rank: int) -> int:
        if rank == 1:
            monkeypatch.setattr(super_resolution, "psnr", fails)
        return evaluate(tiny_model, tmp_path, "--n", "2", "--batch-size", "1", "--only", "upsampler")

    assert in_processes(2, run) == [2, 2]
    out, err = capfd.readouterr()
    assert err.count("this process cannot") == 1 and "Traceback" not in err and out == ""
    assert json.loads((tmp_path / "report.json").read_text())["results"] == {}


def test_a_report_is_continued_and_never_mixed(tiny_model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert evaluate(tiny_model, tmp_path, "--only", "prior") == 0
    monkeypatch.setattr(clip_and_prior, "sample_embeddings", lambda *_, **__: pytest.fail("measured again"))
    assert evaluate(tiny_model, tmp_path, "--only", "prior,upsampler", "--json") == 0
    assert list(json.loads(capsys.readouterr().out.splitlines()[-1])["results"]) == ["prior", "upsampler"]
    assert evaluate(tiny_model, tmp_path, "--seed", "1") == 2
    assert "is a report with seed 0, not 1: choose another folder" in capsys.readouterr().err


def test_the_samplers_that_are_asked_for(tiny_model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(suite_module, "Suite", partial(Suite, steps=(1, 2)))
    arguments = "--only", "steps,prior-steps", "--samplers", "unipc,ddim,unipc", "--n", "2"
    assert evaluate(tiny_model, tmp_path, *arguments, "--json") == 0
    results = json.loads(capsys.readouterr().out)["results"]
    names = [f"{sampler}, {count} steps" for sampler in ("unipc", "ddim") for count in (1, 2)]
    assert [row[""] for row in results["prior-steps"]["rows"]] == names
    assert [row[""] for row in results["steps"]["rows"]][:-1] == names
    monkeypatch.setattr(sweeps, "check_results", lambda *_: pytest.fail("measured again"))
    arguments = "--only", "steps,prior-steps", "--samplers", "ddim", "--n", "2"  # fewer, of the same report
    assert evaluate(tiny_model, tmp_path, *arguments, "--json") == 0
    again = json.loads(capsys.readouterr().out)["results"]
    assert again["steps"]["rows"] == results["steps"]["rows"][2:]
    assert again["prior-steps"]["rows"] == results["prior-steps"]["rows"][2:]


def test_an_interrupt_keeps_what_is_done(tiny_model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(super_resolution, "psnr", lambda *_: signal.raise_signal(signal.SIGINT))
    assert evaluate(tiny_model, tmp_path, "--only", "prior,upsampler") == 130
    assert "the same command continues this evaluation" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "report.json").read_text())["results"]) == ["prior"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "photos"], "--suite 'photos' is unknown; choose from stickers"),
        (["--only", "steps,clipp"], "--only 'clipp' is unknown; did you mean 'clip'?"),
        (["--only", ","], "--only is empty; choose from checker, objects"),
        (["--samplers", "ddimm"], "--samplers 'ddimm' is unknown; did you mean 'ddim'?"),
        (["--n", "0"], "--n must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be from 0 to"),
        (["--split", "test"], "--split 'test' is unknown; choose from held_out, train"),
        (["--model", "sticker"], "did you mean 'stickers'?"),
        (["-o", "/dev/null/x"], "cannot write into"),
    ],
)
def test_mistakes(arguments: list[str], says: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("unclip: error: ") and says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
