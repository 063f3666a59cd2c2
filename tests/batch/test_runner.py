"""Runs of prompt files with a fake pipeline: micro-batches, failures, interruptions and kills."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.fake_pipeline import FakePipeline
from unclip.batch import runner, storage
from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.generation import LocalEngine, Output
from unclip.batch.jobs import Settings, Task, check_rows
from unclip.batch.open_folder import open_folder
from unclip.batch.prompt_file import prompt_file
from unclip.batch.report import Totals
from unclip.batch.run_record import run_seed
from unclip.batch.runner import Runner, group_jobs
from unclip.checkpoints.identity import ModelIdentity, compute_revision
from unclip.errors import InputError, UnclipError
from unclip.images import metadata
from unclip.requests.request import Request
from unclip.system.files import write_atomic

MODEL = ModelIdentity("fake", "0" * 16, None)


class RecordingReport:
    """A RunReport that keeps what it receives."""

    def __init__(self) -> None:
        self.images, self.failures, self.notes = [], [], []

    def generating(self, jobs) -> None:
        pass

    def step(self, stage, done, total) -> None:
        pass

    def image(self, file, entry) -> None:
        self.images.append(file)

    def failure(self, job, problem) -> None:
        self.failures.append((job.row.line, problem))

    def note(self, text) -> None:
        self.notes.append(text)


def run_file(
    pipe, file, out, batch_size=4, report=None, overwrite=False, name=DEFAULT, format="png", progress=None, **options
) -> Totals:
    report = report or RecordingReport()
    template = NameTemplate.parse(name)
    with prompt_file(str(file)) as prompts, open_folder(out, overwrite=overwrite) as folder:
        settings = Settings(seed=run_seed(folder.path, 5, MODEL)[0], name=template)
        jobs = (job for line in check_rows(prompts.rows(), settings) if isinstance(line, Task) for job in line.jobs())
        output = Output(str(file), template, format)
        engine = LocalEngine(pipe, MODEL, output, batch_size, progress or report.step, report.note)
        return Runner(engine, folder, output, report).run(jobs, batch_size, **options)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "p.txt"
    path.write_text("".join(f"cat {i}\n" for i in range(10)))
    return path


def entries(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def image_files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.*g") if path.is_file()}


def test_lines_share_micro_batches_and_are_recorded(file, tmp_path):
    pipe, out = FakePipeline(), tmp_path / "out"
    assert run_file(pipe, file, out) == Totals(made=10)
    assert pipe.batches == [4, 4, 2]
    for entry in entries(out):
        path = out / entry["file"]
        record = metadata.read(path)
        assert record["request"] == entry["request"] and record["seed"] == entry["seed"] == entry["request"]["seed"]
        assert path.stat().st_size == entry["bytes"] and record["pixels"] == entry["pixels"]
        assert (entry["model"], entry["revision"], entry["version"]) == ("fake", "0" * 16, record["version"])
        assert entry["timings"] == {"prior": 0.5} and entry["line"] == entry["index"] + 1
    assert len({entry["seed"] for entry in entries(out)}) == 10
    assert not list((out / ".unclip" / "tmp").iterdir()) and not (out / "errors.jsonl").exists()


def test_lines_are_grouped_with_lines_of_the_same_size(tmp_path):
    file = tmp_path / "p.txt"
    file.write_text("".join(f"cat {i} -- --size {8 * (1 + i % 3)}\n" for i in range(24)))
    pipe = FakePipeline()
    run_file(pipe, file, tmp_path / "out", batch_size=8)
    assert pipe.batches == [8, 8, 8]


def test_the_look_ahead_is_bounded(monkeypatch):
    from unclip.batch.jobs import Job
    from unclip.batch.row import Row

    taken = []

    def jobs():
        for i in range(1000):
            taken.append(i)
            size = 8 if i == 0 else 16 + 8 * (i % 50)
            yield Job(Request(prompt="x", seed=i, size=size), Row(i, i, {}), 0, i)

    batches = group_jobs(jobs(), 64)
    first = next(batches)
    assert len(taken) <= 64 * 50  # a full batch of 50 kinds needs no more
    rest = [first, *batches]
    assert sorted(job.key for batch in rest for job in batch) == list(range(1000))
    monkeypatch.setattr(runner, "WINDOW", 1)
    small = list(group_jobs(jobs(), 4))
    assert small[0][0].key == 0 and len(small[0]) == 1  # the job that shares with none does not wait forever
    assert sorted(job.key for batch in small for job in batch) == list(range(1000))


def test_one_bad_image_fails_alone(file, tmp_path):
    file.write_text("cat 0\ncat 1\nbad cat\ncat 3\nrefused cat\n")
    report, out = RecordingReport(), tmp_path / "out"
    assert run_file(FakePipeline(), file, out, report=report) == Totals(made=3, failed=2)
    assert sorted(report.failures) == [
        (3, "the image is not finite: use a lower guidance"),
        (5, "prompt is refused; write another one"),
    ]
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {error["line"] for error in errors} == {3, 5} and errors[0]["request"]["prompt"] == "bad cat"
    assert sorted(entry["line"] for entry in entries(out)) == [1, 2, 4]
    file.write_text(file.read_text().replace("bad", "good").replace("refused", "fine"))
    assert run_file(FakePipeline(), file, out) == Totals(made=2, skipped=3)
    assert not (out / "errors.jsonl").exists()


def test_out_of_memory_halves_the_micro_batch_from_then_on(file, tmp_path):
    pipe, report = FakePipeline(room=3), RecordingReport()
    assert run_file(pipe, file, tmp_path / "out", batch_size=8, report=report) == Totals(made=10)
    assert pipe.batches == [8, 4, 2, 2, 2, 2, 2]
    assert report.notes[-1] == "out of memory with 4 images at a time; continuing with 2"
    assert run_file(FakePipeline(room=0), file, tmp_path / "none", report=report).failed == 10
    assert "out of memory with one image" in report.failures[0][1]


def test_a_name_is_never_taken_twice(file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "same-7.png").write_text("mine")
    file.write_text("SAME -- --seed 7\nsame -- --seed 7\nsame! -- --seed 7\nother\n")
    run_file(FakePipeline(), file, out, name="{slug}-{seed}", batch_size=2)
    assert (out / "same-7.png").read_text() == "mine"
    assert sorted(entry["file"] for entry in entries(out))[1:] == ["same-7-2.png", "same-7-3.png", "same-7-4.png"]


def test_overwrite_replaces_only_files_that_the_manifest_does_not_list(file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "same-7.png").write_text("mine")
    file.write_text("same -- --seed 7\nsame! -- --seed 7\n")
    options = {"name": "{slug}-{seed}", "overwrite": True}
    run_file(FakePipeline(), file, out, **options)
    assert [entry["file"] for entry in entries(out)] == ["same-7.png", "same-7-2.png"]
    before = image_files(out)
    file.write_text("same -- --seed 7\nsame! -- --seed 7\nsame? -- --seed 7\n")
    assert run_file(FakePipeline(), file, out, **options) == Totals(made=1, skipped=2)
    assert image_files(out).items() > before.items() and len(image_files(out)) == 3


@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_formats(file, tmp_path, format):
    run_file(FakePipeline(), file, tmp_path / "out", format=format)
    for entry in entries(tmp_path / "out"):
        assert entry["file"].endswith(f".{format}")
        assert metadata.read(tmp_path / "out" / entry["file"])["pixels"] == entry["pixels"]


def test_a_record_too_long_for_the_format_fails_its_line(file, tmp_path):
    file.write_text(f"{'cat ' * 20_000}\ncat\n")
    report = RecordingReport()
    assert run_file(FakePipeline(), file, tmp_path / "out", format="jpg", report=report) == Totals(made=1, failed=1)
    assert "write PNG" in report.failures[0][1]


def test_finished_images_are_skipped_and_lost_ones_are_generated_again(file, tmp_path):
    out = tmp_path / "out"
    run_file(FakePipeline(), file, out)
    before = image_files(out)
    names = sorted(before)
    (out / names[3]).unlink()
    (out / names[9]).write_bytes(b"cut")
    with (out / "manifest.jsonl").open("ab") as manifest:
        manifest.write(b'{"file": "cut off')
    pipe = FakePipeline()
    (out / names[9]).unlink()
    assert run_file(pipe, file, out) == Totals(made=2, skipped=8)
    assert pipe.batches == [4, 2]
    assert image_files(out) == before
    assert len(entries(out)) == 10 and len({entry["key"] for entry in entries(out)}) == 10


def test_a_stopped_run_is_resumed(file, tmp_path):
    out, report = tmp_path / "out", RecordingReport()
    totals = run_file(FakePipeline(), file, out, report=report, stop=lambda: len(report.images) >= 4)
    assert totals == Totals(made=4, stopped=True)
    assert run_file(FakePipeline(), file, out) == Totals(made=6, skipped=4)
    run_file(FakePipeline(), file, tmp_path / "whole")
    assert image_files(out) == image_files(tmp_path / "whole")


def test_a_full_disk_ends_the_run_which_can_be_resumed(file, tmp_path, monkeypatch):
    out, report = tmp_path / "out", RecordingReport()

    def write(path, data, **options):
        if str(path).endswith(".png") and len(report.written) == 4:
            raise OSError(28, "No space left on device")
        report.written.append(path)
        return write_atomic(path, data, **options)

    report.written = []
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", write)
        with pytest.raises(UnclipError, match="No space.*run the same command again"):
            run_file(FakePipeline(), file, out)
    assert 0 < len(image_files(out)) < 10
    totals = run_file(FakePipeline(), file, out)
    assert totals.made + totals.skipped == 10 and totals.skipped == 4
    assert len(entries(out)) == len(image_files(out)) == 10


def test_a_second_run_on_a_folder_is_refused(file, tmp_path):
    out = tmp_path / "out"
    code = f"from unclip.batch.open_folder import open_folder; open_folder({str(out)!r}).__enter__()"
    with open_folder(out):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and f"in use by process {os.getpid()} on " in done.stderr
    run_file(FakePipeline(), file, out)  # and is free again


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("data")
    (tmp_path / "out" / ".unclip").mkdir(parents=True)
    (tmp_path / "out" / ".unclip" / "lock").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="lock is a link"), open_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "mine").read_text() == "data"


def test_another_model_needs_another_folder(tmp_path):
    assert run_seed(tmp_path, None, MODEL) == run_seed(tmp_path, None, MODEL)
    assert run_seed(tmp_path, 3, MODEL) == (3, [])
    with pytest.raises(InputError, match="give another folder"):
        run_seed(tmp_path, 3, ModelIdentity("fake", "1" * 16, None))


def test_a_changed_format_is_noted_and_components_do_not_change_the_revision(tmp_path):
    seed, notes = run_seed(tmp_path / "out", None, MODEL, naming={"--format": "png", "--name": "{seed}"})
    assert notes == []
    again, notes = run_seed(tmp_path / "out", None, MODEL, naming={"--format": "webp", "--name": "{seed}"})
    assert again == seed and notes == ["the run before had --format png; its images are kept as they are"]
    _, notes = run_seed(tmp_path / "out", None, MODEL, naming={"--format": "png", "--name": "{seed}"})
    assert notes == ["the run before had --format webp; its images are kept as they are"]
    (tmp_path / "model_index.json").write_text("{}")
    before = compute_revision(tmp_path)
    (tmp_path / "components.safetensors").write_bytes(b"x")
    assert compute_revision(tmp_path) == before


def test_an_image_whose_path_is_impossible_is_one_failure(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,kind\na cat,taken\na dog,free\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "taken").write_text("a file")
    totals = run_file(FakePipeline(), path, out, name="{kind}/{index}")
    assert (totals.made, totals.failed) == (1, 1) and (out / "free" / "1.png").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_killed_at_any_moment_and_resumed(file, tmp_path):
    """A run of 6 images makes some 35 system calls that change the disk; it is killed at one or another of them."""
    file.write_text("".join(f"cat {i}\n" for i in range(6)))
    run_file(FakePipeline(), file, tmp_path / "whole", batch_size=3)
    killed = 0
    for call in (1, 3, 6, 7, 8, 9, 11, 14, 18, 23, 30):
        out = tmp_path / f"out-{call}"
        run = subprocess.run(
            [sys.executable, "-m", "tests.batch.fake_pipeline", str(file), str(out), "3", str(call)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
        )
        killed += run.returncode == -9
        assert run.returncode in (0, -9), run.stderr.decode()
        totals = run_file(FakePipeline(), file, out, batch_size=3)
        assert totals.made + totals.skipped == 6
        assert image_files(out) == image_files(tmp_path / "whole"), call
        assert sorted(entry["file"] for entry in entries(out)) == sorted(image_files(out))
        assert not list((out / ".unclip" / "tmp").iterdir())
    assert killed >= 9


def test_a_folder_of_an_earlier_version_is_resumed(tmp_path):
    """The manifest and the record of the run are those that version 0.1.0 wrote."""
    file, out = tmp_path / "p.txt", tmp_path / "out"
    file.write_text("a cat -- --seed 3 --negative 'a dog'\na red cat -- -n 2 --best-of 4 --seed 1\n")
    (out / ".unclip").mkdir(parents=True)
    (out / ".unclip" / "run.json").write_text(
        '{"seed": 5, "revision": "0000000000000000", "sizes": null, "version": "0.1.0", "model": "fake"}\n'
    )
    manifest = (
        '{"file": "00000-a-cat-3.png", "line": 1, "index": 0, "image": 0, "seed": 3, "request": {"prompt": "a cat", '
        '"negative": "a dog", "mode": "generate", "seed": 3, "n": 1, "best_of": null, "rank": null}, "model": "fake", '
        '"timings": {"prior": 0.5}, "columns": {}, "key": "fe3c38eaf1a0e7ba", "bytes": 5}\n'
        '{"file": "00001-a-red-cat-1.png", "line": 2, "index": 1, "image": 0, "seed": 1, "request": {"prompt": '
        '"a red cat", "negative": "", "seed": 1, "n": 1, "best_of": 4, "rank": 0}, "model": "fake", '
        '"timings": {"prior": 0.5}, "columns": {}, "key": "a56bd5942f268606", "bytes": 5}\n'
        '{"file": "00001-a-red-cat-1-2.png", "line": 2, "index": 1, "image": 1, "seed": 1, "request": {"prompt": '
        '"a red cat", "negative": "", "seed": 1, "n": 1, "best_of": 4, "rank": 1}, "model": "fake", '
        '"timings": {"prior": 0.5}, "columns": {}, "key": "94ceb9d6aca57bc2", "bytes": 5}\n'
    )
    (out / "manifest.jsonl").write_text(manifest)
    for name in ("00000-a-cat-3.png", "00001-a-red-cat-1.png", "00001-a-red-cat-1-2.png"):
        (out / name).write_bytes(b"image")
    pipe = FakePipeline()
    assert run_file(pipe, file, out) == Totals(skipped=3)
    assert pipe.batches == [] and (out / "manifest.jsonl").read_text() == manifest
    (out / "00000-a-cat-3.png").unlink()
    assert run_file(pipe, file, out) == Totals(made=1, skipped=2)
    assert pipe.generated == [("a cat", 3)]
