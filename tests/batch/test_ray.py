"""Batches on a real Ray cluster of this machine, with a fake pipeline."""

import errno
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.batch.fake_pipeline import FakePipeline
from tests.batch.test_runner import MODEL, RecordingReport, entries, image_files, run_file
from unclip.batch import storage
from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.generation import Output
from unclip.batch.jobs import Settings, Task, check_rows
from unclip.batch.open_folder import open_folder
from unclip.batch.prompt_file import prompt_file
from unclip.batch.ray import RayEngine, RayOptions
from unclip.batch.report import Totals
from unclip.batch.run_record import run_seed
from unclip.batch.runner import Runner
from unclip.errors import CheckpointError, InputError, UnclipError, WriteError
from unclip.system.files import write_atomic

ray = pytest.importorskip("ray")
ONE, TWO = RayOptions(workers=1), RayOptions(workers=2)  # the start of a worker takes seconds


class MortalPipeline(FakePipeline):
    """Ends its process over a prompt with "deadly" in it: every time, or only if no other process has ("once")."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def generate_batch(self, requests, progress=None):
        for prompt in {request.prompt for request in requests if "deadly" in request.prompt}:
            marker = self.folder / "died"
            if "once" not in prompt or not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().generate_batch(requests, progress)


def no_model():
    raise CheckpointError("the checkpoint is damaged; download it again")


def killed_while_loading():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        handler = signal.getsignal(signal.SIGTERM)  # Ray sets its own
        ray.init(
            num_cpus=4, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False, address="local"
        )
        signal.signal(signal.SIGTERM, handler)
        yield
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def run(tmp_path):
    """Run lines on two workers: the totals, the folder, and what was reported."""

    def run(lines: list[str], load=FakePipeline, options=TWO, stop=lambda: False, out=tmp_path / "out"):
        file, report = tmp_path / "p.txt", RecordingReport()
        file.write_text("".join(f"{line}\n" for line in lines))
        output = Output(str(file), NameTemplate.parse(DEFAULT))
        engine = RayEngine(options, load, MODEL, output, 4, report.note)
        with prompt_file(str(file)) as prompts, open_folder(out) as folder:
            settings = Settings(seed=run_seed(folder.path, 5, MODEL)[0], name=output.name)
            tasks = (line for line in check_rows(prompts.rows(), settings) if isinstance(line, Task))
            jobs = (job for task in tasks for job in task.jobs())
            totals = Runner(engine, folder, output, report).run(jobs, 4, stop)
        return totals, out, report

    return run


def test_the_folder_is_that_of_a_local_run(run, tmp_path):
    lines = [f"cat {i}" for i in range(30)] + ["a hen -- -n 3", "a bad one", "best -- -n 2 --best-of 5"]
    totals, out, report = run(lines)
    local = RecordingReport()
    assert totals == run_file(FakePipeline(), tmp_path / "p.txt", tmp_path / "local", report=local)
    assert totals == Totals(made=35, failed=1)
    assert image_files(out) == image_files(tmp_path / "local")
    by_key = [{entry["key"]: entry for entry in entries(folder)} for folder in (out, tmp_path / "local")]
    assert by_key[0] == by_key[1]
    assert report.failures == local.failures


def test_images_of_a_worker_that_ends_are_made_by_another(run, tmp_path):
    lines = [f"cat {i}" for i in range(20)] + ["deadly once"]
    totals, out, report = run(lines, partial(MortalPipeline, str(tmp_path)))
    assert totals == Totals(made=21) and len(image_files(out)) == 21
    assert report.notes == ["a worker ended; others generate its images"]


def test_a_prompt_that_ends_every_worker_fails_with_its_micro_batch_alone(run, tmp_path):
    lines = ["deadly", *(f"cat {i}" for i in range(16))]
    totals, _, report = run(lines, partial(MortalPipeline, str(tmp_path)))
    assert totals.made + totals.failed == 17 and totals.failed <= 8
    assert (1, "3 workers ended while they generated it") in report.failures


def test_a_run_that_was_stopped_resumes(run):
    lines, calls = [f"cat {i}" for i in range(40)], iter(range(100))
    totals, out, _ = run(lines, options=ONE, stop=lambda: next(calls) >= 3)
    assert totals.stopped and totals.made == 12
    before = image_files(out)
    totals, out, _ = run(lines, options=ONE)
    assert totals == Totals(made=28, skipped=12)
    assert before.items() <= image_files(out).items() and len(image_files(out)) == 40


def test_a_full_disk_ends_the_run_which_can_be_resumed(run, tmp_path, monkeypatch):
    lines, written = [f"cat {i}" for i in range(40)], []

    def write(path, data, **options):
        if len(written) == 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write_atomic(path, data, **options)

    with monkeypatch.context() as disk:
        disk.setattr(storage, "write_atomic", write)
        with pytest.raises(WriteError, match="No space left on device.; make room, and run the same command again$"):
            run(lines, options=ONE)
    out = tmp_path / "out"
    assert run_file(FakePipeline(), tmp_path / "p.txt", out) == Totals(made=31, skipped=9)
    assert len(image_files(out)) == len(entries(out)) == 40


def test_a_folder_behind_a_url(run, tmp_path):
    lines, url = [f"cat {i}" for i in range(20)], f"file://{tmp_path}/there"
    assert run(lines, options=ONE, out=url)[0] == Totals(made=20)
    assert run_file(FakePipeline(), tmp_path / "p.txt", url) == Totals(skipped=20)
    run_file(FakePipeline(), tmp_path / "p.txt", tmp_path / "local")
    assert image_files(tmp_path / "there") == image_files(tmp_path / "local")


def test_a_model_that_cannot_be_loaded_is_one_error(run):
    with pytest.raises(UnclipError, match="a worker cannot load the model: the checkpoint is damaged"):
        run(["a cat"], no_model, ONE)
    with pytest.raises(UnclipError, match="a worker cannot load the model: ZeroDivisionError: .*by zero"):
        run(["a cat"], partial(divmod, 1, 0), ONE)
    with pytest.raises(UnclipError, match="3 workers ended while they loaded the model"):
        run(["a cat"], killed_while_loading, ONE)


@pytest.mark.parametrize(
    "options, problem",
    [
        (RayOptions(workers=5), "--workers 5: the cluster has 4 CPU cores"),
        (RayOptions(workers=2, gpus_per_worker=0.5), "2 workers with 0.5 GPUs each need 1; the cluster has 0"),
    ],
)
def test_workers_for_which_there_is_no_room(run, options, problem):
    with pytest.raises(InputError, match=problem):
        run(["a cat"], options=options)
