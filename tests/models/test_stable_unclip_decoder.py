"""Stable unCLIP's decoder computes what diffusers' U-Net does, and projects the text once per image."""

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from tests.published_stable_unclip import SIZES, decoder_parts
from unclip.models.stable_unclip_decoder import ImageNormalizer, ImageNormalizerConfig, StableUnclipDecoder


@pytest.fixture(scope="module")
def unet(tmp_path_factory) -> nn.Module:
    """A U-Net of diffusers, as it comes."""
    return decoder_parts(SIZES["one"], tmp_path_factory.mktemp("tokenizer"))["unet"]


def decoder(unet: nn.Module) -> StableUnclipDecoder:
    return StableUnclipDecoder(
        ImageNormalizer(ImageNormalizerConfig(SIZES["one"]["dim"])), copy.deepcopy(unet), torch.ones(1000)
    )


def inputs(seed: int) -> dict[str, Tensor]:
    generator, size = torch.Generator().manual_seed(seed), SIZES["one"]
    embed = torch.randn(2, 2 * size["dim"], generator=generator)
    return {"image_embed": embed, "text_states": torch.randn(2, size["tokens"], size["cross"], generator=generator)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_is_that_of_diffusers_unet(unet: nn.Module, dtype: torch.dtype) -> None:
    """Also when the same text arrives again, another one, and the first once more."""
    network = decoder(unet)
    network.unet.to(dtype)
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([700, 20])
    close = {} if dtype is torch.float32 else {"atol": 0.1, "rtol": 0.1}
    with torch.inference_mode():
        for seed in (1, 2, 1):
            given = inputs(seed)
            expected = unet(x, t, encoder_hidden_states=given["text_states"], class_labels=given["image_embed"]).sample
            given = {key: value.to(dtype) for key, value in given.items()}
            for _ in range(2):
                torch.testing.assert_close(network(x.to(dtype), t, **given).float(), expected, **close)


def test_the_text_is_projected_once(unet: nn.Module) -> None:
    network, calls = decoder(unet), Counter()
    for name, module in network.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([700, 20])
    texts = [name for name, _ in network.unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    images = [name.replace("attn2", "attn1") for name in texts]
    assert len(texts) > 5
    with torch.inference_mode():
        for count, given in enumerate((inputs(1), inputs(2)), 1):
            for _ in range(3):
                network(x, t, **given)
            assert {name: calls[name] for name in texts} == dict.fromkeys(texts, count)
            assert {name: calls[name] for name in images} == dict.fromkeys(images, 3 * count)


def test_gradients_pass_through_the_attention(unet: nn.Module) -> None:
    network = decoder(unet)
    weight = network.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_k.weight.requires_grad_()
    for _ in range(2):  # each step has its own graph
        weight.grad = None
        network(torch.randn(2, 4, 16, 16), torch.tensor([700, 20]), **inputs(1)).sum().backward()
        assert weight.grad is not None and weight.grad.any()
