"""Several processes train as one does: the same curve, the same state, and one end for all."""

import csv
import itertools
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.forked import forks, in_processes
from tests.training.toy import QUICK, Broken, Noise, Toy, at, fail, rows, step_of
from tests.training.toy import run as run_in_auto
from unclip.errors import DataError, ProcessError, RecipeError
from unclip.system.processes import ALONE, Processes
from unclip.training import run
from unclip.training.budget import Budget
from unclip.training.data.loader import batches
from unclip.training.recipe_tables import STAGES
from unclip.training.run import TrainingOptions

pytestmark = [forks, pytest.mark.usefixtures("no_tensorboard")]
run_toy = partial(run_in_auto, dtype=torch.float32)
SETTINGS = QUICK.model_copy(update={"batch_size": 4})
WINDOWS = "\n[decoder.task]\nknown = 0.9\nmoved = 0.8\nbeside = 0.5\nviews = 0.5\ndrafts = 0.5\npooled_drop = 0.5\n"


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "loss.csv").open(newline="") as file:
        return [{key: float(x) for key, x in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_close(found: Path, expected: Path, steps: int, rtol: float = 2e-3) -> None:
    """Two curves are the same up to rounding, which training amplifies step by step."""
    ours, theirs = curve(found), curve(expected)
    assert len(ours) == len(theirs) == steps
    for row, other in zip(ours, theirs, strict=True):
        assert row == pytest.approx(other, rel=rtol, abs=1e-5)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)


def assert_same_model(found: Path, expected: Path) -> None:
    """Two checkpoint folders have the same files, and weights that are the same up to the steps' rounding."""
    names = sorted(path.relative_to(expected) for path in expected.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(found) for path in found.rglob("*") if path.is_file())
    for name in names:
        if name.suffix == ".json":
            assert (found / name).read_bytes() == (expected / name).read_bytes()
        elif name.suffix == ".safetensors":
            ours, theirs = load_file(found / name), load_file(expected / name)
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                torch.testing.assert_close(value, theirs[key], rtol=1e-2, atol=5e-4, msg=f"{name} {key}")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Path) -> Path:
    """The tiny recipe on rendered scenes, whose windows show other images of the batch."""
    text = tiny_recipe.read_text()
    start, end = text.index("kind ="), text.index("[clip.model]")
    text = text[:start] + 'kind = "scenes"\n\n' + text[end:]
    path = tmp_path_factory.mktemp("recipes") / "scenes.toml"
    path.write_text(text.replace("\n[decoder.fit]", f"{WINDOWS}\n[decoder.fit]"))
    return path


def train_stages(recipe: Path, out: Path, **options) -> None:
    """Train each stage for three steps, in a folder of its own."""
    for stage in STAGES:
        own = TrainingOptions(device="cpu", dtype="float32", quiet=True, steps=3, **options)
        run.train(stage, recipe, out / stage, own)


def copy_model(model: Path, out: Path) -> None:
    """Give all stages but CLIP a trained CLIP, and a decoder to make a copy of."""
    for stage in STAGES[1:]:
        shutil.copytree(model, out / stage / "model")


@pytest.fixture(scope="module")
def alone(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, trained by one process."""
    out = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        for stage in ("clip", "decoder"):
            run.train(stage, scenes, out / "first", TrainingOptions(device="cpu", dtype="float32", quiet=True, steps=3))
        copy_model(out / "first" / "model", out)
        train_stages(scenes, out)
    return out


@pytest.mark.parametrize(("count", "parts", "shard"), [(2, 1, False), (1, 2, False), (2, 2, False), (2, 2, True)])
def test_every_stage_has_the_same_curve_however_its_batches_and_weights_are_divided(
    scenes: Path, alone: Path, tmp_path: Path, count: int, parts: int, shard: bool
):
    copy_model(alone / "first" / "model", tmp_path)
    results = in_processes(count, lambda _: train_stages(scenes, tmp_path, accumulation=parts, shard=shard))
    assert results == [None] * count
    for stage in STAGES:
        assert_close(tmp_path / stage / stage, alone / stage / stage, 3)
        assert_same_model(tmp_path / stage / "model", alone / stage / "model")


OWN = """
[data]
kind = "folder"
path = "{pictures}"

[finetune]
samples = 0

[finetune.fit]
workers = 0

[distill]
source = "images"
levels = 2
samples = 0
teacher_steps = 4

[distill.fit]
workers = 0
"""


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize(
    ("stage", "options"),
    [("decoder", {"lora": 2}), ("decoder", {"distill": "consistency"}), ("prior", {"distill": "guidance"})],
)
def test_fine_tuning_and_distillation_have_the_same_curve(
    tiny_model: Path, pictures: Path, tmp_path: Path, stage: str, options: dict, shard: bool
):
    recipe = tmp_path / "own.toml"
    text = OWN if options.get("distill") == "consistency" else OWN.replace("teacher_steps = 4\n", "")
    recipe.write_text(text.format(pictures=pictures))
    source = {"init": tiny_model} if "lora" in options else {"teacher": tiny_model}

    def train(out: Path, **more) -> None:
        own = TrainingOptions(device="cpu", dtype="float32", quiet=True, steps=3, **options, **source, **more)
        run.train(stage, recipe, out, own)

    train(tmp_path / "one")
    assert in_processes(2, lambda _: train(tmp_path / "two", shard=shard)) == [None, None]
    assert_close(tmp_path / "two" / stage, tmp_path / "one" / stage, 3)
    made = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.safetensors"))
    assert made == sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*.safetensors"))


# ---- the loop, with a toy


@pytest.fixture(scope="module")
def whole_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy in one process, in batches of four."""
    folder = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        run_toy(folder, settings=SETTINGS)
    return folder


def assert_same_run(folder: Path, whole: Path) -> None:
    """The state and the curve are the same up to rounding. The toy has dropout, which draws for the whole batch."""
    first, second = (load_file(path / "state.safetensors") for path in (folder, whole))
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=1e-3, atol=1e-5, msg=key)
    ours, theirs = rows(folder), rows(whole)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for name in ("loss", "lr", "grad_norm"):
        assert [float(row[name]) for row in ours] == pytest.approx([float(row[name]) for row in theirs], rel=1e-3)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (4, 2)])
def test_a_run_resumes_with_another_number_of_processes(whole_toy: Path, tmp_path: Path, before: int, after: int):
    def first(_: int) -> None:
        run_toy(tmp_path, Toy(before=at(4, lambda: signal.raise_signal(signal.SIGTERM))), SETTINGS)

    stopped = in_processes(before, first)
    assert [kind for kind, _ in stopped] == [KeyboardInterrupt] * before
    assert step_of(tmp_path / "state.safetensors") == 4
    assert in_processes(after, lambda _: run_toy(tmp_path, settings=SETTINGS, resume=True) and None) == [None] * after
    assert_same_run(tmp_path, whole_toy)


def test_one_process_that_is_interrupted_stops_all_at_the_same_step(tmp_path: Path):
    def stop_second(rank: int) -> None:
        act = at(3, lambda: signal.raise_signal(signal.SIGTERM)) if rank == 1 else None
        run_toy(tmp_path, Toy(before=act), SETTINGS)

    assert [kind for kind, _ in in_processes(2, stop_second)] == [KeyboardInterrupt] * 2
    assert step_of(tmp_path / "state.safetensors") == len(rows(tmp_path)) == 3


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_the_main_one_saves_the_state(tmp_path: Path, killed: int):
    def die(rank: int) -> None:
        act = at(4, lambda: os.kill(os.getpid(), signal.SIGKILL)) if rank == killed else None
        run_toy(tmp_path, Toy(before=act), SETTINGS)

    results = in_processes(2, die)
    assert results[killed] == signal.SIGKILL
    kind, message = results[1 - killed]
    assert kind is ProcessError
    if killed == 0:
        assert message == "another process of this run ended early"
        assert not (tmp_path / "state.safetensors").exists()
    else:
        assert message == "another process of this run ended early; the state of step 3 is saved for --resume"
        assert step_of(tmp_path / "state.safetensors") == 3


def test_an_image_that_one_process_cannot_read_ends_all_with_its_name(whole_toy: Path, tmp_path: Path):
    results = in_processes(2, lambda _: run_toy(tmp_path, settings=SETTINGS, data=Broken(11)))  # the last of batch 3
    assert [kind for kind, _ in results] == [DataError] * 2
    assert results[0][1].startswith("11.png is cut off; ")
    assert results[0][1].endswith("; the state of step 2 is saved for --resume")
    assert step_of(tmp_path / "state.safetensors") == 2
    in_processes(2, lambda _: run_toy(tmp_path, settings=SETTINGS, resume=True) and None)
    assert_same_run(tmp_path, whole_toy)


def test_an_error_of_one_process_does_not_leave_the_other_waiting(tmp_path: Path):
    def break_second(rank: int) -> None:
        act = at(3, lambda: fail(MemoryError())) if rank == 1 else None
        run_toy(tmp_path, Toy(before=act), SETTINGS)

    (main, note), (_, message) = in_processes(2, break_second)
    assert message == "step 3 ran out of memory: lower batch_size in the recipe"
    assert main is ProcessError and note.endswith("the state of step 2 is saved for --resume")


def test_a_disk_that_is_full_for_the_main_process_ends_all(tmp_path: Path):
    def full(rank: int) -> None:
        if rank == 0:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        run_toy(tmp_path, settings=SETTINGS)

    results = in_processes(2, full)
    assert all(isinstance(result, tuple) for result in results)
    assert results[0][1].startswith(f"cannot write {str(tmp_path / 'state.safetensors')!r} (File too large)")


def test_minutes_end_all_processes_at_the_same_step(tmp_path: Path):
    def some(_: int) -> int:
        task = Toy()
        run_toy(tmp_path, task, SETTINGS, budget=Budget(10**9, minutes=0.5 / 60))
        return task.calls

    first, second = in_processes(2, some)
    assert first == second == len(rows(tmp_path))


def test_batches_that_do_not_divide_are_an_error(tmp_path: Path):
    results = in_processes(2, lambda _: run_toy(tmp_path, settings=SETTINGS.model_copy(update={"batch_size": 7})))
    assert [kind for kind, _ in results] == [RecipeError] * 2
    assert "batch_size = 7 is the whole batch, which 2 processes cannot divide equally" in results[0][1]
    assert "set it to 6 or 8, or use other numbers" in results[0][1]


def test_the_processes_divide_every_batch_without_overlap():
    def captions(processes: Processes) -> list[list[str]]:
        return [found for _, found in itertools.islice(batches(Noise(), 6, processes=processes), 5)]

    parts = [captions(Processes(rank, 3)) for rank in range(3)]
    assert [sum(each, []) for each in zip(*parts, strict=True)] == captions(ALONE)
