"""Errors in the middle of a run: the state is saved first, and one line names the fix."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.training.toy import QUICK, STEPS, Broken, Noise, Toy, assert_same, at, fail, rows, run, step_of
from unclip.errors import DataError, RecipeError, TrainingError, WriteError
from unclip.training.budget import Budget

pytestmark = pytest.mark.usefixtures("no_tensorboard")


def test_an_image_that_cannot_be_read_ends_a_run_after_its_state_is_saved(whole: Path, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        run(tmp_path, data=Broken(6))  # of the fourth batch of two
    fix = "mend the file, or add --skip-bad to pass over such files; the state of step 3 is saved for --resume"
    assert str(caught.value) == f"6.png is cut off; {fix}"
    assert (
        step_of(tmp_path / "state.safetensors")
        == step_of(tmp_path / "portable.safetensors")
        == len(rows(tmp_path))
        == 3
    )
    run(tmp_path, resume=True)  # it has been mended
    assert_same(whole, tmp_path)


def test_nothing_is_saved_before_the_first_step(tmp_path: Path):
    with pytest.raises(DataError, match="; no step has been saved$"):
        run(tmp_path, data=Broken(0))
    assert not (tmp_path / "state.safetensors").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_images_are_passed_over_and_counted(tmp_path: Path, capsys, workers: int):
    settings = QUICK.model_copy(update={"workers": workers})
    run(tmp_path, task := Toy(), settings, Broken(3, 6), skip_bad=True, quiet=False)
    assert task.calls == STEPS
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unclip: note: ")]
    assert [note.removeprefix("unclip: note: ") for note in notes] == [
        "passed over: 3.png is cut off",
        "passed over: 6.png is cut off",
        "files passed over during the run: 2",
    ]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")]
)
def test_a_run_out_of_memory_saves_its_state(whole: Path, tmp_path: Path, error: Exception):
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, Toy(before=at(4, lambda: fail(error))))
    fix = "lower batch_size in the recipe; the state of step 3 is saved for --resume"
    assert str(caught.value) == f"step 4 ran out of memory: {fix}"
    run(tmp_path, resume=True)
    assert_same(whole, tmp_path)


def test_an_unexpected_error_saves_the_state_and_stays_what_it_is(tmp_path: Path):
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path, Toy(before=at(3, lambda: fail(ZeroDivisionError("a bug")))))
    assert caught.value.__notes__ == ["the state of step 2 is saved for --resume"]
    assert caught.value.__cause__ is None
    assert step_of(tmp_path / "state.safetensors") == 2


def test_half_a_step_is_never_saved(tmp_path: Path, monkeypatch):
    steps, calls = torch.optim.AdamW.step, []

    def step(self, *args):
        result = steps(self, *args)
        calls.append(0)
        return result if len(calls) < 4 else fail(MemoryError())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(TrainingError, match="no step has been saved"):
        run(tmp_path / "a")
    assert not (tmp_path / "a" / "state.safetensors").exists()
    calls.clear()
    with pytest.raises(TrainingError, match="the state of step 3 is saved for --resume"):
        run(tmp_path / "b", settings=QUICK.model_copy(update={"save_minutes": 0}))
    assert step_of(tmp_path / "b" / "state.safetensors") == 3


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_names_the_file_and_leaves_the_portable_state(whole: Path, tmp_path: Path):
    import resource

    sizes = {name: (whole / f"{name}.safetensors").stat().st_size for name in ("state", "portable")}
    limit = (sizes["state"] + sizes["portable"]) // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(WriteError) as caught:
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file = str(tmp_path / "state.safetensors")
    assert str(caught.value).startswith(f"cannot write {file!r} (File too large): make room, or mend that; ")
    assert str(caught.value).endswith(f"the state of step {STEPS} is saved for --resume")
    assert {path.name for path in tmp_path.iterdir()} == {"loss.csv", "portable.safetensors"}
    run(tmp_path, task := Toy(), budget=Budget(STEPS + 1), resume=True)
    assert task.calls == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_worker_is_one_line_and_the_state_is_saved(tmp_path: Path):
    class Deadly(Noise):
        def __getitem__(self, index: int) -> tuple[Tensor, str]:
            if index == 12:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    with pytest.raises(TrainingError, match=r"^a process that loads data was killed.*; the state of step \d is saved"):
        run(tmp_path, settings=QUICK.model_copy(update={"workers": 1}), data=Deadly())
    assert step_of(tmp_path / "state.safetensors") == len(rows(tmp_path)) > 0


def test_files_of_a_killed_run_are_removed(whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "samples").mkdir(exist_ok=True)
    for name in (".unclip-0123456789abcdef.tmp", "samples/.unclip-0123456789abcdef.tmp"):
        (tmp_path / name).write_bytes(b"half a file")
    run(tmp_path, resume=True)
    assert not list(tmp_path.rglob("*.tmp"))


def test_ignored_signals_stay_ignored(tmp_path: Path):
    """As a shell has it for jobs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(tmp_path, task := Toy(before=at(3, lambda: signal.raise_signal(signal.SIGINT))))
        assert task.calls == STEPS and signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Toy(before=at(3, lambda: signal.raise_signal(signal.SIGTERM))))
    finally:
        signal.signal(signal.SIGINT, before)
    assert step_of(tmp_path / "state.safetensors") == 3


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_run_that_diverges_ends_before_it_spoils_its_weights(tmp_path: Path, kind: str):
    class Diverging(Toy):
        def loss(self, network, batch):
            loss, figures = super().loss(network, batch)
            if self.calls == 4:  # the root of 0 has an infinite gradient
                loss = loss * float("nan") if kind == "loss" else loss + (0 * loss).sqrt()
            return loss, figures

    with pytest.raises(RecipeError, match="^step 4 has a loss of .*: lower lr in the recipe") as caught:
        run(tmp_path, task := Diverging(), QUICK.model_copy(update={"save_minutes": 0}))
    assert "nan" in str(caught.value) or "inf" in str(caught.value)
    assert step_of(tmp_path / "state.safetensors") == 3
    assert all(value.isfinite().all() for value in load_file(tmp_path / "state.safetensors").values())
    assert all(value.isfinite().all() for value in task.network.parameters())
