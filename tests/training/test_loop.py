"""The training loop: rates and averages, stopping and resuming, samples."""

import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.training.toy import QUICK, STEPS, Toy, assert_same, at, rows, run, shade, step_of
from unclip.system.interrupts import SIGNALS
from unclip.training.budget import Budget, Progress
from unclip.training.loop import learning_rate
from unclip.training.recipe_tables import Fit

pytestmark = pytest.mark.usefixtures("no_tensorboard")
STOPS = list(SIGNALS)


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
    task.loss = lambda network, batch: (0 * network(batch.images).sum(), {})
    start = {name: value.detach().clone() for name, value in task.network.named_parameters()}
    run(tmp_path, task, Fit(batch_size=1, lr=0.1, warmup=0, decay=0, weight_decay=0.5, workers=0), budget=Budget(2))
    end = load_file(tmp_path / "state.safetensors")
    for name, value in start.items():
        factor = (1 - 0.1 * 0.5) ** 2 if value.ndim > 1 else 1.0
        torch.testing.assert_close(end[f"weights.{name}"], factor * value)


def test_the_gradient_is_clipped(tmp_path: Path):
    seen = []
    task = Toy()
    task.loss = lambda network, batch: (100 * network(batch.images).sum(), {})
    steps = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:

        def step(self, *args):
            grads = [p.grad for group in self.param_groups for p in group["params"]]
            seen.append(torch.cat([g.flatten() for g in grads]).norm())
            return steps(self, *args)

        patch.setattr(torch.optim.AdamW, "step", step)
        run(tmp_path, task, Fit(batch_size=1, lr=1e-3, clip_norm=0.25, workers=0), budget=Budget(2))
    assert seen == [pytest.approx(0.25, rel=1e-3)] * 2
    assert float(rows(tmp_path)[0]["grad_norm"]) > 100  # the curve has the norm before clipping


def test_weights_that_are_frozen_stay(tmp_path: Path):
    task = Toy()
    task.network[0].requires_grad_(False)
    before = task.network[0].weight.detach().clone()
    assert torch.equal(run(tmp_path, task)[0].weight, before)
    assert not [key for key in load_file(tmp_path / "state.safetensors") if key.endswith(".0.weight")]


# ---- stopping and resuming


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(whole: Path, tmp_path: Path, stop: signal.Signals):
    inherited = signal.signal(stop, signal.default_int_handler)  # nohup, for one, leaves SIGHUP ignored
    handlers = [signal.getsignal(number) for number in STOPS]
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Toy(before=at(3, lambda: signal.raise_signal(stop))))
    assert [signal.getsignal(number) for number in STOPS] == handlers
    signal.signal(stop, inherited)
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


def test_without_resume_a_run_starts_again(whole: Path, tmp_path: Path):
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


def test_samples_show_the_average(tmp_path: Path):
    trained = run(tmp_path, settings=QUICK.model_copy(update={"sample_minutes": 0}))
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        f"{step:07d}.png" for step in range(1, STEPS + 1)
    ]
    last = Image.open(tmp_path / "samples" / f"{STEPS:07d}.png")
    assert last.getpixel((0, 0)) == shade(trained)
