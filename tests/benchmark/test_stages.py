"""What the measures of speed are made of; how fast anything is, no test asks."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.published import SIZES, published
from unclip.benchmark import stages as speed
from unclip.cli.main import main
from unclip.errors import UnclipError
from unclip.inference import stage as stage_module


@pytest.fixture(scope="module")
def karlo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("karlo")
    published(SIZES["one"], folder).save_pretrained(folder / "karlo")
    return folder / "karlo"


def test_both_sides_are_measured_by_stage(karlo: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(speed, "in_process", speed.measure)  # two processes would take long to start
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
    for stage in ("decoder", "upsampler", "upsampler, last"):  # the same networks; what is not seen is left out
        rows = [side["stages"][stage]["tflop"] for side in (theirs, ours)]
        assert rows[0] >= rows[1] == pytest.approx(rows[0], rel=0.3)
    assert theirs["stages"]["prior"]["tflop"] > ours["stages"]["prior"]["tflop"] > 0
    monkeypatch.setattr(stage_module, "TOGETHER", {"cpu": 1})  # a step takes a call for each picture
    parted = speed.measure(speed.Run("unclip", str(karlo), 2, device="cpu", dtype="float32"))
    for stage, row in parted["stages"].items():
        assert row["tflop"] == pytest.approx(ours["stages"][stage]["tflop"], rel=0.1)
    text = speed.table(ours).splitlines()
    assert text[0] == "unclip, float32 on cpu" and "images a minute" in text[-1]


def test_a_process_of_its_own_answers_and_tells_of_failure(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = speed.in_process(speed.Run("unclip", str(tiny_model), dtype="float32", memory="low"))
    assert list(found["stages"]) == ["text", "prior", "decoder", "upsampler"]
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\n  of it\nCheckpointError: it is gone\n")
    monkeypatch.setattr(speed.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UnclipError, match="^the measurement of unclip failed: CheckpointError: it is gone$"):
        speed.in_process(speed.Run("unclip", str(tiny_model)))


def test_the_arithmetic_is_that_of_the_networks() -> None:
    network = nn.Sequential(nn.Linear(30, 20, bias=False), nn.Linear(20, 7, bias=False))
    parts = {"first": network[0], "second": network[1], "never": nn.Linear(1, 1)}
    found = speed.count_flops(parts, lambda _: network(torch.ones(5, 30)))
    assert found == {"first": 2 * 5 * 30 * 20, "second": 2 * 5 * 20 * 7, "never": 0}


def test_calls_are_timed_and_left_alone_afterwards() -> None:
    network, seconds = nn.Linear(3, 3), {"only": []}
    with speed.timed_calls({"only": network}, seconds, torch.device("cpu")):
        network(torch.ones(1, 3))
        network(torch.ones(1, 3))
    network(torch.ones(1, 3))
    assert len(seconds["only"]) == 2 and min(seconds["only"]) > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--against", "karlo"], "--against 'karlo' is unknown; choose from diffusers"),
        (["--against", "diffusers"], "diffusers runs published checkpoints only: give one with --model"),
        (["--memory", "some"], "unknown memory 'some'; choose from auto, low, high"),
    ],
)
def test_mistakes(arguments: list[str], says: str, capsys) -> None:
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err == f"unclip: error: {says}\n"


@pytest.mark.parametrize(
    ("calls", "drawn", "steps", "mean"),
    [
        ([4.0, 1.0, 1.0], 3, 25, (4 + 24) / 25),
        ([2.0, 2.0, 0.5, 0.5, 0.5, 0.5], 3, 10, (4 + 9) / 10),  # two calls a step
        ([3.0, 1.0], 1, 1, 4.0),
        ([4.0, 1.0, 1.0], 3, 1, 4.0),
    ],
)
def test_the_first_step_counts_once(calls: list[float], drawn: int, steps: int, mean: float) -> None:
    assert speed.seconds_a_step(calls, drawn, steps) == pytest.approx(mean)
