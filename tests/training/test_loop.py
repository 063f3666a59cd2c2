"""The training loop on a network of a few weights: what a run leaves behind, and that it can be cut anywhere."""

import csv
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from unclip.errors import CheckpointError, DataError, RecipeError, TrainingError, WriteError
from unclip.training.budget import Budget, Progress
from unclip.training.data.loader import STOP_SIGNALS
from unclip.training.loop import Session, fit, learning_rate
from unclip.training.loss_plot import SIZE
from unclip.training.monitor import ProgressBar
from unclip.training.recipe import Fit

CPU = torch.device("cpu")
STEPS = 8
STOPS = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
QUICK = Fit(batch_size=2, lr=0.02, warmup=2, decay=0.5, workers=0)


class Noise(Dataset):
    """Item i is a function of i."""

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8), str(index)


class Toy:
    """Means of pictures by a convolution, whose weights lie in channels_last, with dropout, which draws on its own."""

    size = 8
    predicts = "sample"

    def __init__(self, width: int = 4, before: Callable[["Toy"], None] | None = None):
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(width, 3, 3, padding=1), nn.Flatten(2)
        )
        self.before = before
        self.calls = 0

    def loss(self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator):
        self.calls += 1
        if self.before is not None:
            self.before(self)
        noise = torch.randn(images.shape, generator=generator)
        error = network(images + noise).mean(2) - images.mean((2, 3))
        return error.square().mean(), {"first": torch.tensor(float(captions[0]))}

    def sample_grid(self) -> Image.Image:
        """The mean weight as a grey, to be read back."""
        assert not self.network.training
        return Image.new("L", (2, 2), shade(self.network))

    def networks(self) -> dict[str, nn.Module]:
        return {}


def shade(network: nn.Module) -> int:
    return round(network[0].weight.abs().mean().item() * 1000) % 256


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None:
    pass


def run(
    folder: Path, task: Toy | None = None, settings: Fit = QUICK, data: Dataset | None = None, **options
) -> nn.Module:
    task = Toy() if task is None else task
    data = Noise() if data is None else data
    options = {"title": "toy", "seed": 5, "budget": Budget(STEPS), "device": CPU, "quiet": True, **options}
    return fit(task, data, settings, Session(folder=folder, **options))


class Broken(Noise):
    """Of these items one cannot be read; all others, also those that replace it, can."""

    def __init__(self, *bad: int):
        self.bad = bad

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        if index in self.bad:
            raise DataError(f"{index}.png is cut off")
        return super().__getitem__(index)


def fail(error: BaseException) -> None:
    raise error


def at(step: int, act: Callable[[], None]) -> Callable[[Toy], None]:
    """`act` while the step of that number (from 1) is computed."""
    return lambda task: act() if task.calls == step else None


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "loss.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def step_of(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return int(file.metadata()["progress"].split('"step": ')[1].split(",")[0])


def assert_same(a: Path, b: Path) -> None:
    """Weights, average, moments, step and curve of two runs are the same, bit for bit."""
    first, second = (load_file(folder / "state.safetensors") for folder in (a, b))
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    assert step_of(a / "state.safetensors") == step_of(b / "state.safetensors")
    assert rows(a) == rows(b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of STEPS steps that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        run(folder := tmp_path_factory.mktemp("whole"))
    return folder


# ---- rates and averages


def test_the_learning_rate_warms_up_holds_and_falls_to_zero():
    shape = Fit(lr=1.0, warmup=4, decay=0.25)
    rates = [learning_rate(shape, step, step / 100) for step in range(101)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:76] == [1.0] * 72
    assert rates[76:] == pytest.approx([(100 - step) / 25 for step in range(76, 101)])
    assert rates[100] == 0
    assert learning_rate(Fit(lr=1.0, warmup=0, decay=0), 0, 0.99) == 1.0


def test_the_curve_has_a_row_a_step_with_its_rate(whole: Path):
    curve = rows(whole)
    assert [int(row["step"]) for row in curve] == list(range(1, STEPS + 1))
    assert [int(row["images"]) for row in curve] == [2 * step for step in range(1, STEPS + 1)]
    assert [int(row["first"].partition(".")[0]) for row in curve] == [2 * step for step in range(STEPS)]  # the data
    rates = [learning_rate(QUICK, step, step / STEPS) for step in range(STEPS)]
    assert [float(row["lr"]) for row in curve] == pytest.approx(rates, rel=1e-5)
    assert all(float(row["loss"]) > 0 and float(row["grad_norm"]) > 0 for row in curve)


def test_the_average_is_the_weighted_mean_of_the_weights(tmp_path: Path):
    seen: list[Tensor] = []
    task = Toy(before=lambda task: seen.append(task.network[0].weight.detach().clone()))
    trained = run(tmp_path, task, Fit(batch_size=2, lr=0.02, warmup=0, ema=0.5, workers=0))
    seen.append(load_file(tmp_path / "state.safetensors")["weights.0.weight"])
    average = seen[0]
    for step, weights in enumerate(seen[1:], start=1):
        momentum = min(0.5, (1 + step) / (10 + step))
        average = momentum * average + (1 - momentum) * weights
    assert len(seen) == STEPS + 1
    torch.testing.assert_close(trained[0].weight.detach(), average)
    torch.testing.assert_close(load_file(tmp_path / "state.safetensors")["ema.0.weight"], average)
    assert not trained.training


def test_matrices_decay_and_biases_do_not(tmp_path: Path):
    task = Toy()
    task.loss = lambda network, images, *_: (0 * network(images).sum(), {})
    start = {name: value.detach().clone() for name, value in task.network.named_parameters()}
    run(tmp_path, task, Fit(batch_size=1, lr=0.1, warmup=0, decay=0, weight_decay=0.5, workers=0), budget=Budget(2))
    end = load_file(tmp_path / "state.safetensors")
    for name, value in start.items():
        factor = (1 - 0.1 * 0.5) ** 2 if value.ndim > 1 else 1.0
        torch.testing.assert_close(end[f"weights.{name}"], factor * value)


def test_the_gradient_is_clipped(tmp_path: Path):
    seen = []
    task = Toy()
    task.loss = lambda network, images, *_: (100 * network(images).sum(), {})
    steps = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:

        def step(self, *args):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(torch.cat([g.flatten() for g in grads]).norm())
            return steps(self, *args)

        patch.setattr(torch.optim.AdamW, "step", step)
        run(tmp_path, task, Fit(batch_size=1, lr=1e-3, clip_norm=0.25, workers=0), budget=Budget(2))
    assert seen == [pytest.approx(0.25, rel=1e-3)] * 2
    assert float(rows(tmp_path)[0]["grad_norm"]) > 100  # what the curve shows is the norm before


def test_weights_that_are_frozen_stay(tmp_path: Path):
    task = Toy()
    task.network[0].requires_grad_(False)
    before = task.network[0].weight.detach().clone()
    assert torch.equal(run(tmp_path, task)[0].weight, before)
    assert not [key for key in load_file(tmp_path / "state.safetensors") if key.endswith(".0.weight")]


# ---- stopping and resuming


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_and_resumed_run_equals_an_undisturbed_one(whole: Path, tmp_path: Path, stop: signal.Signals):
    handlers = [signal.getsignal(number) for number in STOPS]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Toy(before=at(3, lambda: signal.raise_signal(stop))))
    assert [signal.getsignal(number) for number in STOPS] == handlers
    assert step_of(tmp_path / "state.safetensors") == step_of(tmp_path / "portable.safetensors") == 3
    assert len(rows(tmp_path)) == 3
    trained = run(tmp_path, resume=True)
    assert_same(whole, tmp_path)
    assert torch.equal(trained[0].weight, load_file(whole / "state.safetensors")["ema.0.weight"])


def test_a_run_killed_after_a_save_drops_the_rows_beyond_it(whole: Path, tmp_path: Path):
    kept = tmp_path / "kept.safetensors"
    settings = QUICK.model_copy(update={"save_minutes": 0, "sample_minutes": 0})
    task = Toy(before=at(6, lambda: shutil.copy(tmp_path / "state.safetensors", kept)))  # the state of step 5
    run(tmp_path, task, settings)
    shutil.copy(kept, tmp_path / "state.safetensors")
    with (tmp_path / "loss.csv").open("a") as file:
        file.write("9,18,0.1")  # half a row, as a kill leaves it
    task = Toy()
    run(tmp_path, task, QUICK, resume=True)
    assert task.calls == STEPS - 5
    assert_same(whole, tmp_path)  # and saving and sampling at each step changed nothing


def test_the_curve_has_reached_the_disk_when_a_state_is_saved(tmp_path: Path):
    found = []
    settings = QUICK.model_copy(update={"save_minutes": 0})
    run(tmp_path, Toy(before=lambda task: found.append(len(rows(tmp_path)) if task.calls > 1 else 0)), settings)
    assert found == list(range(STEPS))


def test_workers_change_nothing(whole: Path, tmp_path: Path):
    run(tmp_path, settings=QUICK.model_copy(update={"workers": 1}))
    assert_same(whole, tmp_path)


def test_a_run_outside_the_main_thread(whole: Path, tmp_path: Path):
    thread = threading.Thread(target=run, args=(tmp_path,))
    thread.start()
    thread.join()
    assert_same(whole, tmp_path)


def test_a_finished_run_has_nothing_to_do(whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    task = Toy()
    trained = run(tmp_path, task, resume=True)
    assert task.calls == 0
    assert_same(whole, tmp_path)
    assert torch.equal(trained[0].weight, load_file(whole / "state.safetensors")["ema.0.weight"])


def test_without_resume_a_run_starts_anew(whole: Path, tmp_path: Path):
    run(tmp_path, budget=Budget(3))
    run(tmp_path)
    assert_same(whole, tmp_path)


def test_minutes_end_a_run_and_count_in_the_next(tmp_path: Path):
    budget = Budget(10**9, minutes=0.2 / 60)
    assert budget.fraction_done(Progress(step=5, seconds=0.05)) == pytest.approx(0.25)
    run(tmp_path, budget=budget)
    done = len(rows(tmp_path))
    assert done >= 1
    task = Toy()
    run(tmp_path, task, budget=budget, resume=True)
    assert task.calls == 0 and len(rows(tmp_path)) == done


# ---- states that cannot be used


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


# ---- errors in the middle of a run


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
        def loss(self, network, images, captions, generator):
            loss, figures = super().loss(network, images, captions, generator)
            if self.calls == 4:  # the root of 0 has an infinite gradient
                loss = loss * float("nan") if kind == "loss" else loss + (0 * loss).sqrt()
            return loss, figures

    with pytest.raises(RecipeError, match="^step 4 has a loss of .*: lower lr in the recipe") as caught:
        run(tmp_path, task := Diverging(), QUICK.model_copy(update={"save_minutes": 0}))
    assert "nan" in str(caught.value) or "inf" in str(caught.value)
    assert step_of(tmp_path / "state.safetensors") == 3
    assert all(value.isfinite().all() for value in load_file(tmp_path / "state.safetensors").values())
    assert all(value.isfinite().all() for value in task.network.parameters())


# ---- the state that leaves a machine


def test_the_portable_state_is_halved_and_enough_to_go_on(whole: Path, tmp_path: Path):
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


def test_the_full_state_comes_before_the_portable_one(whole: Path, tmp_path: Path):
    run(tmp_path, budget=Budget(3))
    shutil.copy(whole / "portable.safetensors", tmp_path)
    task = Toy()
    run(tmp_path, task, budget=Budget(4), resume=True)
    assert task.calls == 1


# ---- what is shown


def test_samples_show_the_average(tmp_path: Path):
    trained = run(tmp_path, settings=QUICK.model_copy(update={"sample_minutes": 0}))
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        f"{step:07d}.png" for step in range(1, STEPS + 1)
    ]
    last = Image.open(tmp_path / "samples" / f"{STEPS:07d}.png")
    assert last.getpixel((0, 0)) == shade(trained)


def test_the_bar_shows_speed_and_time_left_or_nothing(tmp_path: Path, capsys):
    run(tmp_path, quiet=False, title="decoder (3 of 4)")
    shown = capsys.readouterr().err
    assert "decoder (3 of 4): " in shown
    assert f"{STEPS}/{STEPS} steps" in shown and "images/s, ETA" in shown and "loss" in shown
    run(tmp_path, quiet=False, budget=Budget(1, minutes=0.05 / 60))
    assert "images/s, ETA" in capsys.readouterr().err
    run(tmp_path)
    assert capsys.readouterr() == ("", "")


def test_the_curve_is_plotted(whole: Path, tmp_path: Path):
    assert Image.open(whole / "loss.png").size == SIZE
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Toy(before=at(1, lambda: signal.raise_signal(signal.SIGTERM))))
    first = (tmp_path / "loss.png").read_bytes()
    run(tmp_path, resume=True)
    assert (tmp_path / "loss.png").read_bytes() == (whole / "loss.png").read_bytes() != first


def test_the_speed_is_that_of_this_session():
    with ProgressBar("toy", Budget(1000), Progress(step=500, seconds=1e6), batch_size=10, quiet=True) as bar:
        assert bar.speed == 0 and bar.left == float("inf")
        bar.update(Progress(501, 1e6 + 90))  # compiles
        for step in (502, 503):
            bar.update(Progress(step, 1e6 + 90 + 2 * (step - 501)))
        assert bar.speed == pytest.approx(5)
        assert bar.left == pytest.approx(2 * (1000 - 503))
    with ProgressBar("toy", Budget(1, minutes=10), Progress(step=500, seconds=300), batch_size=10, quiet=True) as bar:
        bar.update(Progress(501, 330))
        assert bar.left == pytest.approx(270)


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch):
    run(tmp_path / "without")
    assert not (tmp_path / "without" / "tensorboard").exists() and len(rows(tmp_path / "without")) == STEPS
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    run(tmp_path / "with")
    assert [os.path.getsize(path) > 0 for path in (tmp_path / "with" / "tensorboard").iterdir()] == [True]
    assert rows(tmp_path / "with") == rows(tmp_path / "without")
