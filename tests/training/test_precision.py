"""Half precisions: bfloat16, and float16 with a scaled loss, whose gradients may overflow."""

import json
import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.forked import forks, in_processes
from tests.training.toy import CPU, QUICK, STEPS, Toy, assert_same, rows, run
from unclip.errors import InputError, RecipeError
from unclip.training.batch import Batch
from unclip.training.budget import Budget
from unclip.training.options import TrainingOptions
from unclip.training.precision import Precision

pytestmark = pytest.mark.usefixtures("no_tensorboard")
SETTINGS = QUICK.model_copy(update={"batch_size": 4})
run_toy = partial(run, settings=SETTINGS, dtype=torch.float16)


class Steep(Toy):
    """The toy with gradients that overflow in float16 until the scale of the loss has fallen from 2**16.

    factor: of the loss.
    """

    def __init__(self, factor: float = 100.0):
        super().__init__()
        self.factor = factor

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, figures = super().loss(network, batch)
        return self.factor * loss, figures


def progress(folder: Path) -> dict:
    with safe_open(folder / "state.safetensors", "pt") as file:
        return json.loads(file.metadata()["progress"])


def skipped(folder: Path) -> list[bool]:
    return [not math.isfinite(float(row["grad_norm"])) for row in rows(folder)]


@pytest.fixture(scope="module")
def steep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in float16 whose first steps overflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        run_toy(folder := tmp_path_factory.mktemp("steep"), Steep())
    return folder


def test_a_step_that_overflows_is_passed_over_and_the_scale_is_halved(steep: Path):
    missed = skipped(steep)
    count = sum(missed)
    assert 0 < count < STEPS and missed == sorted(missed, reverse=True)  # the first ones
    assert all(math.isfinite(float(row["loss"])) for row in rows(steep))
    found = progress(steep)
    assert found["step"] == STEPS and found["scaler"]["scale"] == 2.0**16 / 2**count
    tensors = load_file(steep / "state.safetensors")
    assert {value.item() for key, value in tensors.items() if key.startswith("step.")} == {STEPS - count}


def test_a_step_that_is_passed_over_changes_neither_weights_nor_average(steep: Path, tmp_path: Path):
    count = sum(skipped(steep))
    run_toy(tmp_path, Steep(), budget=Budget(count))
    tensors = load_file(tmp_path / "state.safetensors")
    for name, value in Toy().network.named_parameters():
        assert torch.equal(tensors[f"weights.{name}"], value) and torch.equal(tensors[f"ema.{name}"], value)
    assert progress(tmp_path)["step"] == count


@pytest.mark.parametrize("steps", [1, 6])
def test_the_scale_is_resumed(steep: Path, tmp_path: Path, steps: int):
    """The run stops while its steps overflow, or after; with a rate that does not depend on the budget."""
    settings = SETTINGS.model_copy(update={"decay": 0.0})
    run_toy(tmp_path / "whole", Steep(), settings=settings)
    run_toy(tmp_path / "parts", Steep(), settings=settings, budget=Budget(steps))
    run_toy(tmp_path / "parts", Steep(), settings=settings, resume=True)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert progress(tmp_path / "parts")["scaler"] == progress(tmp_path / "whole")["scaler"]


def test_gradients_that_overflow_at_any_scale_end_the_run(tmp_path: Path):
    settings = SETTINGS.model_copy(update={"warmup": 0})
    with pytest.raises(RecipeError, match="gradient of norm (inf|nan): lower lr in the recipe"):
        run_toy(tmp_path, Steep(1e9), settings=settings, budget=Budget(60))
    assert 17 <= len(rows(tmp_path)) < 20  # from 2**16 to below 1


@forks
@pytest.mark.parametrize("shard", [False, True])
def test_an_overflow_in_one_process_is_one_in_all(steep: Path, tmp_path: Path, shard: bool):
    results = in_processes(2, lambda _: run_toy(tmp_path, Steep(), shard=shard) and None)
    assert results == [None, None]
    assert skipped(tmp_path) == skipped(steep) and progress(tmp_path)["scaler"] == progress(steep)["scaler"]
    first, second = (load_file(folder / "state.safetensors") for folder in (tmp_path, steep))
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0.05, atol=2e-3, msg=key)


def test_bfloat16_computes_the_activations_and_keeps_the_weights(tmp_path: Path):
    seen = []

    class Watching(Toy):
        def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append((network[0](batch.images).dtype, network[0].weight.dtype))  # pyright: ignore
            return super().loss(network, batch)

    run(tmp_path / "half", Watching(), dtype=torch.bfloat16)
    run(tmp_path / "full", dtype=torch.float32)
    assert set(seen) == {(torch.bfloat16, torch.float32)}
    assert "scaler" not in progress(tmp_path / "half")
    half, full = ([float(row["loss"]) for row in rows(tmp_path / name)] for name in ("half", "full"))
    assert half == pytest.approx(full, rel=0.05) and half != full


def test_the_norm_of_gradients_is_clipped_over_all_weights():
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(2))]
    weights[0].grad, weights[1].grad = torch.tensor([2.0, 4.0, 4.0]), torch.tensor(8.0)
    optimizer = torch.optim.SGD(weights, lr=1.0)
    precision = Precision(CPU, torch.float32)
    assert precision.clip_gradients(optimizer, weights, 5.0) == 10.0
    assert torch.allclose(weights[0].grad, torch.tensor([1.0, 2.0, 2.0])) and weights[1].grad.item() == pytest.approx(4)
    assert precision.clip_gradients(optimizer, weights, 50.0) == pytest.approx(5)
    assert weights[1].grad.item() == pytest.approx(4)


def test_float16_needs_a_gpu():
    with pytest.raises(
        InputError, match="^training in float16 needs a GPU with CUDA: use --dtype bfloat16 or float32$"
    ):
        TrainingOptions(dtype="float16").precision(torch.device("cpu"))
    assert TrainingOptions(dtype="float16").precision(torch.device("cuda")) == torch.float16


@pytest.mark.parametrize(("configured", "expected"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_auto_follows_the_configuration_of_accelerate(monkeypatch, configured: str, expected: torch.dtype):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", configured)
    gpu = torch.device("cuda")
    assert TrainingOptions().precision(gpu) == expected
    assert TrainingOptions(dtype="float32").precision(gpu) == torch.float32
