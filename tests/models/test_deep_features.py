import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from unclip.models.deep_features import DeepFeatures, can_reuse_features

SIZE = {"sample_size": 8, "in_channels": 3, "out_channels": 3, "norm_num_groups": 4}
CROSS = {"cross_attention_dim": 8, "attention_head_dim": 4}
LAYOUTS = {
    "karlo": lambda: UNet2DConditionModel(
        **SIZE,
        **CROSS,
        block_out_channels=(8, 16, 16),
        layers_per_block=3,
        down_block_types=("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 2),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*["SimpleCrossAttnUpBlock2D"] * 2, "ResnetUpsampleBlock2D"),
    ),
    "stable diffusion": lambda: UNet2DConditionModel(
        **SIZE,
        **CROSS,
        block_out_channels=(8, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ),
    "upsampler": lambda: UNet2DModel(
        **SIZE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        add_attention=False,
    ),
    "attention at every level": lambda: UNet2DModel(
        **SIZE,
        block_out_channels=(8, 16),
        layers_per_block=2,
        attention_head_dim=4,
        down_block_types=("AttnDownBlock2D",) * 2,
        up_block_types=("AttnUpBlock2D",) * 2,
    ),
    "one level": lambda: UNet2DModel(
        **SIZE,
        block_out_channels=(8,),
        layers_per_block=2,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ),
}
X, T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([400, 400])
TEXT = {"encoder_hidden_states": torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))}


class Network(nn.Module):
    """A network as those of stages are."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, **inputs: Tensor) -> Tensor:
        return self.unet(x, t, **inputs).sample


def build(layout: str) -> tuple[Network, dict[str, Tensor]]:
    torch.manual_seed(0)
    network = Network(LAYOUTS[layout]()).eval().requires_grad_(False)
    return network, TEXT if isinstance(network.unet, UNet2DConditionModel) else {}


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_features_of_the_same_input_give_the_networks_output_exactly(layout: str) -> None:
    network, inputs = build(layout)
    split = DeepFeatures(network)
    expected = network(X, T, **inputs)
    output, features = split.whole(X, T, **inputs)
    assert torch.equal(output, expected)
    assert torch.equal(split.shallow(features, X, T, **inputs), expected)
    assert torch.equal(network(X, T, **inputs), expected)  # the network itself is as it was


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_a_shallow_call_reads_its_input_and_skips_the_deep_layers(layout: str) -> None:
    network, inputs = build(layout)
    split = DeepFeatures(network)
    _, features = split.whole(X, T, **inputs)
    ran: list[str] = []
    for name, module in network.named_modules():
        if type(module).__name__.startswith("ResnetBlock"):
            module.register_forward_hook(lambda *_, name=name: ran.append(name))
    other = split.shallow(features, X + 0.1, T, **inputs)
    last = len(network.unet.up_blocks) - 1
    assert all(name.startswith(("unet.down_blocks.0", f"unet.up_blocks.{last}")) for name in ran)
    assert 1 <= len(ran) <= 3
    assert not torch.equal(other, split.shallow(features, X, T, **inputs))
    assert not torch.equal(other, network(X + 0.1, T, **inputs))  # with other deep features


def test_a_network_without_a_u_net_has_no_deep_features() -> None:
    assert not can_reuse_features(nn.Linear(2, 2))
    assert can_reuse_features(build("karlo")[0])
