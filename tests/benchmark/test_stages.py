"""The benchmark of stages: its report and its parts, but no actual speeds."""

import json
import runpy
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.published import SIZES, published
from unclip.benchmark import stages
from unclip.benchmark.pipelines import StageBenchmark
from unclip.cli.main import main
from unclip.errors import UnclipError
from unclip.inference import stage as stage_module

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def karlo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("karlo")
    published(SIZES["one"], folder).save_pretrained(folder / "karlo")
    return folder / "karlo"


def test_both_libraries_are_measured_by_stage(karlo: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(stages, "measure_in_process", stages.measure_stages)  # saves the start of two processes
    arguments = ["bench", "--model", str(karlo), "--against", "diffusers", "--batch-size", "2", "--device", "cpu"]
    arguments += ["--dtype", "float32"]
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    ours, theirs = report["sides"]
    assert (ours["side"], theirs["side"]) == ("unclip", "diffusers")
    for side in (ours, theirs):
        assert list(side["stages"]) == ["text", "prior", "decoder", "upsampler", "upsampler, last"]
        assert [row["steps"] for row in side["stages"].values()][1:] == [25, 25, 6, 1]
        assert all(row["seconds_a_step"] > 0 and 0 < row["share_of_peak"] < 1 for row in side["stages"].values())
        total = sum(row["seconds_a_step"] * row["steps"] for row in side["stages"].values())
        assert side["images_a_minute"] == pytest.approx(60 * 2 / total)
        assert side["peak_mib"] > 100
        assert side["dtype"] == "float32"
    # The same networks; ours skips work without effect, and pads products of few rows (see `batch_invariance`).
    for stage in ("decoder", "upsampler", "upsampler, last"):
        rows = [side["stages"][stage]["tflop"] for side in (theirs, ours)]
        assert 1.01 * rows[0] >= rows[1] == pytest.approx(rows[0], rel=0.3)
    assert theirs["stages"]["prior"]["tflop"] >= ours["stages"]["prior"]["tflop"] > 0
    monkeypatch.setattr(stage_module, "CHUNK_BYTES", {"cpu": 1})  # a step takes one call per image
    split = stages.measure_stages(StageBenchmark("unclip", str(karlo), 2, device="cpu", dtype="float32"))
    for stage, row in split["stages"].items():
        assert row["tflop"] == pytest.approx(ours["stages"][stage]["tflop"], rel=0.1)
    text = stages.format_stages(ours).splitlines()
    assert text[0] == "unclip, float32 on cpu" and "images a minute" in text[-1]


@pytest.mark.parametrize("family", ["kandinsky-2-2", "kandinsky-2-1", "stable-unclip"])
def test_latent_families_are_measured_against_diffusers(family: str, tmp_path: Path) -> None:
    runpy.run_path(str(EXAMPLES / "full_size.py"))["main"](str(tmp_path / "model"), "--tiny", "--family", family)
    sides = [
        stages.measure_stages(StageBenchmark(library, str(tmp_path / "model"), steps=2, device="cpu", dtype="float32"))
        for library in ("diffusers", "unclip")
    ]
    assert list(sides[0]["stages"]) == list(sides[1]["stages"])
    for stage, row in sides[1]["stages"].items():
        theirs = sides[0]["stages"][stage]
        assert row["seconds_a_step"] > 0 and row["steps"] == theirs["steps"]
        if stage in ("decoder", "autoencoder"):  # ours skips work without effect
            assert theirs["tflop"] * 1.001 >= row["tflop"] == pytest.approx(theirs["tflop"], rel=0.3)


def test_a_process_of_its_own_reports_results_and_failure(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = stages.measure_in_process(StageBenchmark("unclip", str(tiny_model), dtype="float32", memory="low"))
    assert list(found["stages"]) == ["text", "prior", "decoder", "upsampler"]
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\n  of it\nCheckpointError: not found\n")
    monkeypatch.setattr(stages.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UnclipError, match="^the measurement of unclip failed: CheckpointError: not found$"):
        stages.measure_in_process(StageBenchmark("unclip", str(tiny_model)))


def test_operations_are_counted_by_network() -> None:
    network = nn.Sequential(nn.Linear(30, 20, bias=False), nn.Linear(20, 7, bias=False))
    parts = {"first": network[0], "second": network[1], "never": nn.Linear(1, 1)}
    found = stages.count_flops(parts, lambda _: network(torch.ones(5, 30)))
    assert found == {"first": 2 * 5 * 30 * 20, "second": 2 * 5 * 20 * 7, "never": 0}


def test_calls_are_timed_only_inside_the_context() -> None:
    network, seconds = nn.Linear(3, 3), {"only": []}
    with stages.timed_calls({"only": network}, seconds, torch.device("cpu")):
        network(torch.ones(1, 3))
        network(torch.ones(1, 3))
    network(torch.ones(1, 3))
    assert len(seconds["only"]) == 2 and min(seconds["only"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "karlo"], "--against 'karlo' is unknown; choose from diffusers"),
        (["--against", "diffusers"], "diffusers runs published checkpoints only: give one with --model"),
        (["--memory", "some"], "unknown memory 'some'; choose from auto, low, high"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys) -> None:
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err == f"unclip: error: {message}\n"


@pytest.mark.parametrize(
    ("calls", "measured_steps", "steps", "mean"),
    [
        ([4.0, 1.0, 1.0], 3, 25, (4 + 24) / 25),
        ([2.0, 2.0, 0.5, 0.5, 0.5, 0.5], 3, 10, (4 + 9) / 10),  # two calls a step
        ([3.0, 1.0], 1, 1, 4.0),
        ([4.0, 1.0, 1.0], 3, 1, 4.0),
    ],
)
def test_the_first_step_counts_once(calls: list[float], measured_steps: int, steps: int, mean: float) -> None:
    assert stages.seconds_per_step(calls, measured_steps, steps) == pytest.approx(mean)
