import copy
import weakref

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D, ResnetBlockCondNorm2D
from torch import nn

from unclip.models.cpu.resnet import use_in_place_blocks

KINDS = {
    "plain": {"out_channels": 8},
    "widening": {"out_channels": 16},
    "scale and shift": {"out_channels": 16, "time_embedding_norm": "scale_shift"},
    "halving": {"out_channels": 8, "down": True},
    "doubling": {"out_channels": 8, "up": True, "time_embedding_norm": "scale_shift"},
    "scaled": {"out_channels": 8, "output_scale_factor": 2.0},
    "time as it is": {"out_channels": 8, "skip_time_act": True},
    "without time": {"out_channels": 8, "temb_channels": None},
}


@pytest.fixture(params=KINDS, ids=str)
def block(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    settings = {"temb_channels": 12, "groups": 4, **KINDS[request.param]}
    return nn.Sequential(ResnetBlock2D(in_channels=8, **settings)).eval()


def inputs(block: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    x = torch.randn(3, 8, 6, 10).to(memory_format=torch.channels_last)
    return x, None if block[0].time_emb_proj is None else torch.randn(3, 12)


def test_output_is_that_of_diffusers_and_inputs_stay_unchanged(block: nn.Module) -> None:
    x, time = inputs(block)
    ours, before = use_in_place_blocks(copy.deepcopy(block)), (x.clone(), None if time is None else time.clone())
    with torch.inference_mode():
        torch.testing.assert_close(ours[0](x, time), block[0](x, time))
    assert torch.equal(x, before[0])
    assert time is None or torch.equal(time, before[1])


def test_gradients_are_those_of_diffusers(block: nn.Module) -> None:
    x, time = inputs(block)
    x.requires_grad_()  # as in a U-Net; without it, GroupNorm crashes in torch before 2.14
    ours = use_in_place_blocks(copy.deepcopy(block))
    for network in (ours, block):
        network[0](x, time).square().sum().backward()
    for mine, theirs in zip(ours.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_weight_names_are_unchanged(block: nn.Module) -> None:
    names = list(block.state_dict())
    assert list(use_in_place_blocks(block).state_dict()) == names


def test_other_activations_are_left_to_diffusers() -> None:
    block = nn.Sequential(ResnetBlock2D(in_channels=8, groups=4, temb_channels=None, non_linearity="gelu"))
    assert type(use_in_place_blocks(block)[0]) is ResnetBlock2D


@pytest.mark.parametrize("settings", [KINDS["plain"], KINDS["scale and shift"]], ids=["plain", "scale and shift"])
def test_activations_are_freed_early(settings: dict) -> None:
    """The input of the first convolution is freed before the second normalization allocates its output."""
    block = ResnetBlock2D(in_channels=8, temb_channels=12, groups=4, **settings).eval()
    use_in_place_blocks(nn.Sequential(block))
    went_in, alive = [], []
    block.conv1.register_forward_pre_hook(lambda _, inputs: went_in.append(weakref.ref(inputs[0])))
    block.norm2.register_forward_pre_hook(lambda *_: alive.append(went_in[0]() is not None))
    with torch.inference_mode():
        block(torch.randn(1, 8, 6, 6), torch.randn(1, 12))
    assert alive == [False]


# ---- MoVQ's blocks


def spatial_block(out_channels: int, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    block = ResnetBlockCondNorm2D(
        in_channels=32, out_channels=out_channels, temb_channels=4, time_embedding_norm="spatial", **settings
    )
    return nn.Sequential(block).eval()


@pytest.mark.parametrize("resize", [(1, 1), (4, 4), (2, 3)])
@pytest.mark.parametrize("settings", [{}, {"out_channels": 64}, {"output_scale_factor": 2.0}], ids=str)
def test_a_latent_modulates_as_in_diffusers(settings: dict, resize: tuple[int, int]) -> None:
    block = spatial_block(**{"out_channels": 32, **settings})
    ours = use_in_place_blocks(copy.deepcopy(block))
    assert not {type(a) for a in ours.modules()} & {ResnetBlockCondNorm2D, type(block[0].norm1)}
    for layout in (torch.contiguous_format, torch.channels_last):
        latent = torch.randn(2, 4, 6, 5).to(memory_format=layout)
        x = torch.randn(2, 32, 6 * resize[0], 5 * resize[1]).to(memory_format=layout)
        before = x.clone()
        with torch.inference_mode():
            torch.testing.assert_close(ours[0](x, latent), block[0](x, latent))
        assert torch.equal(x, before)
    x.requires_grad_()  # torch 2.10 to 2.13 crash in the backward of GroupNorm for channels_last input without it
    for network in (ours, block):
        network[0](x, latent).square().sum().backward()
    for mine, theirs in zip(ours.parameters(), block.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_size_that_no_whole_number_divides_is_left_to_diffusers() -> None:
    block = spatial_block(32)
    x, latent = torch.randn(1, 32, 7, 9), torch.randn(1, 4, 3, 4)
    with torch.inference_mode():
        expected = block[0](x, latent)
        torch.testing.assert_close(use_in_place_blocks(block)[0](x, latent), expected)
