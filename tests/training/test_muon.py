"""Muon: orthogonal updates of matrices, AdamW's for the rest, and a state that resumes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.training.toy import QUICK, STEPS, assert_same, run
from unclip.errors import CheckpointError
from unclip.training.budget import Budget
from unclip.training.muon import Muon, muon_groups, orthogonalize

MUON = QUICK.model_copy(update={"optimizer": "muon"})

pytestmark = pytest.mark.usefixtures("no_tensorboard")


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix).float())
    assert values.min() > 0.4 and values.max() < 1.3


def test_an_update_of_a_matrix_is_as_long_as_the_rate_says_whatever_the_gradient() -> None:
    for scale in (1e-4, 1.0, 1e3):
        weight = nn.Parameter(torch.zeros(32, 32))
        weight.grad = scale * torch.randn(32, 32, generator=torch.Generator().manual_seed(1))
        Muon([{"params": [weight], "muon": True}], lr=0.1, weight_decay=0).step()
        assert weight.detach().square().mean().sqrt() == pytest.approx(0.1 * 0.2, rel=0.15)


def test_the_rest_is_stepped_as_by_adamw() -> None:
    ours, theirs = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.01}
    optimizers = Muon([{"params": [ours]}], **settings), torch.optim.AdamW([theirs], **settings)
    for step in range(5):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = torch.sin(torch.arange(4.0) + step)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_ends_of_a_network_are_left_to_adamw_and_biases_do_not_decay() -> None:
    names = ("unet.conv_in.weight", "unet.mid.weight", "unet.time_embedding.linear_1.weight", "projection.x.weight")
    parameters = {name: nn.Parameter(torch.ones(2, 2)) for name in names}
    parameters["unet.mid.bias"] = nn.Parameter(torch.ones(2))
    inner, outer, plain = muon_groups(parameters)
    assert inner == {"params": [parameters["unet.mid.weight"]], "muon": True}
    assert len(outer["params"]) == 3
    assert plain == {"params": [parameters["unet.mid.bias"]], "weight_decay": 0.0}


def test_a_run_resumes_to_the_same_weights_and_other_optimisers_refuse_its_state(tmp_path: Path) -> None:
    run(tmp_path / "whole", settings=MUON)
    settings = MUON.model_copy(update={"decay": 0.0})
    run(tmp_path / "constant", settings=settings)
    run(tmp_path / "half", settings=settings, budget=Budget(STEPS // 2))
    run(tmp_path / "half", settings=settings, resume=True)
    assert_same(tmp_path / "constant", tmp_path / "half")
    state = load_file(tmp_path / "whole" / "state.safetensors")
    assert state["exp_avg_sq.0.weight"].shape == () and state["exp_avg_sq.0.bias"].shape == (4,)
    with pytest.raises(CheckpointError, match=r"exp_avg_sq.0.weight is \[\] in the file and \[4, 3, 3, 3\]"):
        run(tmp_path / "whole", resume=True)
