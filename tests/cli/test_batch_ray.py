"""`unclip batch --engine ray`: processes of a real cluster with a real, tiny model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from unclip.cli.main import main

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
IMAGES = 80


@pytest.fixture
def arguments(tiny_model, tmp_path) -> list[str]:
    (tmp_path / "p.txt").write_text("".join(f"a red cat {i}\n" for i in range(IMAGES)))
    fixed = ["--seed", "1", "--size", "16", "--batch-size", "2", "--dtype", "float32", "--device", "cpu", "--quiet"]
    return ["batch", str(tmp_path / "p.txt"), "--model", str(tiny_model), *fixed]


def start_and_wait(arguments: list[str], out: Path, more: int) -> subprocess.Popen:
    """The program as a process of its own, once it has made that many images more."""
    before = len(images(out))
    process = subprocess.Popen(
        [sys.executable, "-m", "unclip", *arguments, "--engine", "ray", "--workers", "2", "-o", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    while len(images(out)) < before + more and process.poll() is None:
        time.sleep(0.01)
    return process


def images(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.png")}


def test_interrupted_then_killed_then_resumed(arguments, tmp_path):
    """In the end, by a run without Ray, the folder is as if nothing had happened."""
    out = tmp_path / "out"
    process = start_and_wait(arguments, out, 3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 130 and "the same command again resumes it" in err and "Traceback" not in err
    assert 3 <= len(images(out)) < IMAGES

    process = start_and_wait(arguments, out, 3)
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in family if "Worker" in child.name()]
    process.kill()
    process.communicate()
    assert len(images(out)) < IMAGES
    assert workers and not psutil.wait_procs(workers, timeout=60)[1]  # they end with their driver

    assert main([*arguments, "-o", str(out)]) == 0
    assert main([*arguments, "-o", str(tmp_path / "local")]) == 0
    local = images(tmp_path / "local")
    assert len(local) == IMAGES and images(out) == local
    keys = [json.loads(line)["key"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == IMAGES


@pytest.mark.parametrize(
    "given, problem",
    [
        (["--workers", "2"], "--workers needs --engine ray"),
        (["--address", "auto"], "--address needs --engine ray"),
        (["--gpus-per-worker", "0.5"], "--gpus-per-worker needs --engine ray"),
        (["--engine", "ray", "--preview"], "--preview writes the steps of this process"),
        (["--engine", "dask"], "--engine 'dask'"),
        (["--engine", "ray", "--workers", "0"], "should be greater than or equal to 1"),
    ],
)
def test_options_that_do_not_belong_together(arguments, given, problem, tmp_path, capsys):
    assert main([*arguments, "-o", str(tmp_path / "out"), *given]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there(arguments, tmp_path, capsys):
    assert main([*arguments, "-o", str(tmp_path / "out"), "--engine", "ray", "--address", "127.0.0.1:9"]) == 2
    err = capsys.readouterr().err
    assert "no Ray cluster at '127.0.0.1:9'" in err and "Traceback" not in err
