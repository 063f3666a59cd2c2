"""The examples run unchanged, from any folder."""

import base64
import io
import json
import os
import runpy
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.forked import forks, in_processes
from unclip.batch.prompt_file import FORMATS
from unclip.cli.main import main

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str) -> None:
    runpy.run_path(str(EXAMPLES / name))["main"](*arguments)


def test_every_example_is_tested():
    tested = {
        "penguins.py",
        "gallery.py",
        "train_own.py",
        "edit.py",
        "measure_edits.py",
        "full_size.py",
        "embeddings.py",
        "paper_studies.py",
    }
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_penguins(tmp_path):
    run("penguins.py", str(tmp_path))
    assert len(list(tmp_path.glob("penguin-*.png"))) == 4


def test_gallery(tmp_path):
    run("gallery.py", str(tmp_path))
    with Image.open(tmp_path / "gallery.webp") as sheet:
        assert sheet.width > sheet.height > 256
    with Image.open(tmp_path / "large.webp") as large:
        assert large.size == (1024, 1024)


@pytest.mark.parametrize(
    ("family", "side"), [("karlo", 16), ("kandinsky-2-2", 128), ("kandinsky-2-1", 128), ("stable-unclip", 128)]
)
def test_a_checkpoint_for_benchmarks(family, side, tmp_path, capsys):
    run("full_size.py", str(tmp_path / "full"), "--tiny", "--family", family)
    assert capsys.readouterr().out.endswith(f"M parameters in {tmp_path / 'full'}\n")
    assert main(["models", "check", str(tmp_path / "full")]) == 0
    capsys.readouterr()
    arguments = ["--model", str(tmp_path / "full"), "--steps", "2", "--prior-steps", "2", "--upsampler-steps", "2"]
    assert main(["generate", "a cat", *arguments, "--memory", "low", "-o", str(tmp_path / "cat.png")]) == 0
    with Image.open(tmp_path / "cat.png") as image:
        assert image.size == (side, side)


@pytest.fixture
def recorded_unclip(tmp_path) -> dict[str, str]:
    """An environment in which `unclip` writes down its arguments."""
    program = tmp_path / "bin" / "unclip"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nexit ${{CODE:-0}}\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash")
@pytest.mark.parametrize("code", [0, 1, 130])
def test_a_task_of_slurm_runs_its_shard(recorded_unclip, code, tmp_path):
    place = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8", "CODE": str(code)}
    script = ["bash", str(EXAMPLES / "cluster" / "slurm.sh"), "my prompts.csv", "my out"]
    assert subprocess.run(script, env={**recorded_unclip, **place}).returncode == code
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:4] == ["batch", "my prompts.csv", "-o", "my out/3"]
    assert arguments[arguments.index("--shard") + 1] == "3/8"


def test_a_task_of_slurm_passes_the_signal_on(recorded_unclip, tmp_path):
    (tmp_path / "bin" / "unclip").write_text(
        f"#!/bin/sh\ntrap 'touch {tmp_path}/stopped; exit 130' TERM\ntouch {tmp_path}/started\n"
        "while true; do sleep 0.1; done\n"
    )
    place = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    script = ["bash", str(EXAMPLES / "cluster" / "slurm.sh"), "p.csv", "out"]
    with subprocess.Popen(script, env={**recorded_unclip, **place}) as task:
        while not (tmp_path / "started").exists():
            time.sleep(0.02)
        task.terminate()
        assert task.wait(timeout=30) == 130
    assert (tmp_path / "stopped").exists()


def test_a_pod_of_kubernetes_runs_its_shard(recorded_unclip, tmp_path):
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load((EXAMPLES / "cluster" / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    shards = job["spec"]["completions"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    command = [*container["command"], *container["args"]]
    subprocess.run(command, env={**recorded_unclip, "JOB_COMPLETION_INDEX": str(shards - 1)}, check=True)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[:4] == ["batch", "/data/prompts.csv", "-o", f"/data/out/{shards - 1}"]
    assert arguments[arguments.index("--shard") + 1] == f"{shards}/{shards}"


def test_edit(tmp_path):
    run("edit.py", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"inpainted.png", "outpainted.png", "before_after.webp"}
    with Image.open(tmp_path / "outpainted.png") as wide:
        assert wide.size == (512, 256)


def test_figures_of_embeddings(tiny_model, tmp_path):
    out = tmp_path / "out"
    assert main(["models", "components", str(shutil.copytree(tiny_model, tmp_path / "model")), "--count", "20"]) == 0
    run("embeddings.py", "figures", str(out), str(tmp_path / "model"))
    assert {path.stem for path in out.iterdir()} == {"variations", "interpolation", "text_diff", "components"}
    with Image.open(out / "components.webp") as sheet:
        assert sheet.size == (4 * 132 - 4, 128)  # 5, 10 and all 16 components, and the image


@pytest.mark.parametrize(
    ("study", "lines", "figures"),
    [
        ("typographic", 8, ["typographic"]),
        ("guidance", 12, ["guidance_autoregressive", "guidance_diffusion", "guidance_guidance"]),
        ("binding", 5, ["binding"]),
    ],
)
def test_studies_of_the_paper(study, lines, figures, tiny_model, tmp_path, capsys):
    run("paper_studies.py", study, "2", str(tmp_path), str(tiny_model))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines + len(figures) and sorted(path.stem for path in tmp_path.iterdir()) == figures


def test_measures_of_embeddings(tiny_model, tmp_path, capsys):
    run("embeddings.py", "best-of", "1", str(tmp_path), str(tiny_model))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == [f"best of {k}" for k in (1, 2, 4, 8)]
    with Image.open(tmp_path / "best_of.png") as image:
        assert image.size == (420, 260)
    run("embeddings.py", "psnr", "1", str(tiny_model), "2", "5")
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["2", "5"]


@forks
@pytest.mark.parametrize(
    "words", [("embeddings.py", "psnr", "9", "MODEL", "2"), ("embeddings.py", "best-of", "2", "OUT", "MODEL")]
)
def test_processes_share_a_measurement(words, tiny_model, tmp_path, capfd, monkeypatch):
    def measure(name: str) -> None:
        own = [{"MODEL": str(tiny_model), "OUT": str(tmp_path / name)}.get(word, word) for word in words]
        monkeypatch.setattr("sys.argv", own)
        runpy.run_path(str(EXAMPLES / words[0]), run_name="__main__")

    printed = {}
    for name, count in (("one", 1), ("two", 2)):
        assert in_processes(count, lambda _, name=name: measure(name)) == [None] * count
        printed[name] = capfd.readouterr().out.replace(str(tmp_path / name), "OUT")
    assert printed["one"] == printed["two"] != ""
    one, two = ([path.read_bytes() for path in (tmp_path / name).glob("*")] for name in ("one", "two"))
    assert one == two


def test_measure_edits(capsys):
    run("measure_edits.py", "1")
    [line] = [line for line in capsys.readouterr().out.splitlines() if "the other half is untouched" in line]
    assert "100.0%" in line


def test_training_on_own_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()  # the user's own
    for _ in range(2):  # the second time there is nothing left to train
        run("train_own.py", "1")
        assert (tmp_path / "run" / "model" / "model_index.json").exists()
        with Image.open(tmp_path / "own.png") as image:
            assert image.size == (256, 256)
    assert not list((tmp_path / "pictures").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "rendered_images", "run", "own.png"}


def test_there_is_a_prompt_file_of_each_text_format():
    assert {path.suffix[1:] for path in EXAMPLES.glob("prompts.*")} == set(FORMATS) - {"parquet"}


@pytest.mark.parametrize("file", ["prompts.txt", "prompts.jsonl", "prompts.csv", "prompts.tsv"])
def test_every_line_of_the_prompt_files_is_valid(file, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["batch", str(EXAMPLES / file), "--dry-run", "--strict", "--all-combinations"]) == 0
    assert "bad     0 lines" in capsys.readouterr().out


def test_a_prompt_file_runs(tmp_path):
    file, out = str(EXAMPLES / "prompts.tsv"), tmp_path / "out"
    assert main(["batch", file, "-o", str(out), "--size", "64", "--steps", "2", "--seed", "1", "--quiet"]) == 0
    entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [entry["columns"]["Category"] for entry in entries] == ["Vehicles", "Illustrations"]
    assert all((out / entry["file"]).is_file() and entry["notes"] == [] for entry in entries)


def test_the_notebook_runs_as_it_is_and_shows_its_images(tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # pictures would make the clone large
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    sizes = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                with Image.open(io.BytesIO(base64.b64decode(output["data"]["image/png"]))) as image:
                    sizes.append(image.size)
    # sheets of 4, 2, 4, 2, 4 and 5 images with labels, and single images
    assert sizes == [(516, 544), (256, 256), (516, 270), (516, 544), (516, 270), (512, 256), (516, 544), (776, 544)]
    assert (tmp_path / "penguin.png").is_file()
