"""States of runs: states that cannot be used, and the portable state."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.toy import QUICK, STEPS, Toy, assert_same, rows, run, step_of
from unclip.errors import CheckpointError
from unclip.training.budget import Budget

pytestmark = pytest.mark.usefixtures("no_tensorboard")


def test_nothing_to_resume(tmp_path: Path):
    with pytest.raises(CheckpointError, match="nothing to resume in .*; leave out --resume"):
        run(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_state_of_another_recipe_is_named_by_tensor(whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=r"weights.0.weight is \[4, 3, 3, 3\] in the file and \[5, 3, 3, 3\]"):
        run(tmp_path, Toy(width=5), resume=True)
    smaller = Toy()
    smaller.network[2].requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"tensor \S+\.2\.\S+ is .* in the file and missing in the recipe"):
        run(tmp_path, smaller, resume=True)
    assert_same(whole, tmp_path)


@pytest.mark.parametrize("lost", ["weights.2.bias", "ema.0.weight", "exp_avg_sq.0.weight", "step.2.bias"])
def test_a_missing_tensor_is_named_and_nothing_is_loaded(whole: Path, tmp_path: Path, lost: str):
    tensors = load_file(whole / "state.safetensors")
    del tensors[lost]
    save_file(tensors, tmp_path / "state.safetensors", metadata={"progress": '{"step": 8, "seconds": 1.0}'})
    task = Toy()
    before = task.network[0].weight.detach().clone()
    with pytest.raises(CheckpointError, match=f"tensor {lost} is missing in the file"):
        run(tmp_path, task, resume=True)
    assert torch.equal(task.network[0].weight, before)


def test_a_damaged_state_is_one_line(whole: Path, tmp_path: Path):
    path, data = tmp_path / "state.safetensors", (whole / "state.safetensors").read_bytes()
    for damaged in (b"", b"junk", data[:100], data[:-1], data[:8] + b"\xff" * 50 + data[58:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="state.safetensors is damaged") as caught:
            run(tmp_path, resume=True)
        assert "\n" not in str(caught.value)
    for metadata in (None, {"other": ""}, {"progress": "{"}, {"progress": '{"steps": 3}'}):
        save_file(load_file(whole / "state.safetensors"), path, metadata=metadata)
        with pytest.raises(CheckpointError, match="damaged or not a training state") as caught:
            run(tmp_path, resume=True)
        fix = f"; copy an intact state.safetensors or portable.safetensors there, or delete {tmp_path} to start again"
        assert str(caught.value).endswith(fix)


def test_a_run_with_a_damaged_state_resumes_from_the_portable_one(whole: Path, tmp_path: Path, capsys):
    (tmp_path / "state.safetensors").write_bytes((whole / "state.safetensors").read_bytes()[:-100])
    shutil.copy(whole / "portable.safetensors", tmp_path)
    run(tmp_path, task := Toy(), budget=Budget(STEPS + 2), resume=True, quiet=False)
    assert task.calls == 2 and step_of(tmp_path / "state.safetensors") == STEPS + 2
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unclip: note: ")]
    assert len(notes) == 1 and "state.safetensors is damaged" in notes[0]
    assert notes[0].endswith("the run resumes from step 8 of portable.safetensors, with new optimiser moments")


def test_a_run_resumes_from_the_portable_state_in_half_precision(whole: Path, tmp_path: Path):
    full, portable = (load_file(whole / f"{name}.safetensors") for name in ("state", "portable"))
    assert portable.keys() == {key for key in full if key.startswith(("weights.", "ema."))}
    for key, value in portable.items():
        assert value.dtype == torch.float16
        torch.testing.assert_close(value.float(), full[key], rtol=2**-11, atol=2**-25)  # half a unit in the last place
    shutil.copy(whole / "portable.safetensors", tmp_path)
    task = Toy()
    run(tmp_path, task, budget=Budget(STEPS + 2), resume=True)
    assert task.calls == 2
    assert [row["step"] for row in rows(tmp_path)] == [str(STEPS + 1), str(STEPS + 2)]
    assert step_of(tmp_path / "state.safetensors") == STEPS + 2


def test_values_beyond_half_precision_keep_their_size(tmp_path: Path):
    task = Toy()
    with torch.no_grad():
        task.network[0].weight[0, 0, 0, 0] = 1e6
    run(tmp_path, task, budget=Budget(1))
    value = load_file(tmp_path / "portable.safetensors")["weights.0.weight"]
    assert value.dtype == torch.bfloat16 and value[0, 0, 0, 0].item() == pytest.approx(1e6, rel=2**-8)


def test_the_full_state_takes_precedence_over_the_portable_one(whole: Path, tmp_path: Path):
    run(tmp_path, budget=Budget(3))
    shutil.copy(whole / "portable.safetensors", tmp_path)
    task = Toy()
    run(tmp_path, task, budget=Budget(4), resume=True)
    assert task.calls == 1


def test_moments_of_8_bits_resume_exactly(tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    settings = QUICK.model_copy(update={"optimizer": "adamw8bit", "decay": 0.0})
    run(tmp_path / "whole", Toy(200), settings, budget=Budget(4))
    run(tmp_path / "parts", Toy(200), settings, budget=Budget(2))
    run(tmp_path / "parts", Toy(200), settings, budget=Budget(4), resume=True)
    assert_same(tmp_path / "whole", tmp_path / "parts")
    assert "absmax1.0.weight" in load_file(tmp_path / "whole" / "state.safetensors")  # not too small for 8 bits
