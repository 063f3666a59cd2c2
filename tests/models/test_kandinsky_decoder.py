"""Kandinsky's decoder computes what diffusers' U-Net does, and projects the embeddings once per image."""

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder
from tests.published_kandinsky_2_1 import SIZES_2_1, kandinsky_2_1_decoder
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.kandinsky_decoder import KandinskyDecoder
from unclip.models.text import TextEncoding

VERSIONS = {"2.2": (kandinsky_decoder, SIZES_2_2), "2.1": (kandinsky_2_1_decoder, SIZES_2_1)}


@pytest.fixture(scope="module", params=VERSIONS)
def unet(request) -> nn.Module:
    """A U-Net of diffusers, as it comes."""
    make, sizes = VERSIONS[request.param]
    return make(sizes["other"]).unet


def embeddings(unet: nn.Module, seed: int, rows: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """An image's embedding, a text's embedding and its states."""
    generator = torch.Generator().manual_seed(seed)
    config = unet.config
    dim = config.encoder_hid_dim if config.addition_embed_type == "image" else config.cross_attention_dim
    image, text = torch.randn(2, rows, dim, generator=generator)
    return image, text, torch.randn(rows, 5, config.encoder_hid_dim, generator=generator)


def conditioning(network: KandinskyDecoder, seed: int, rows: int = 1) -> dict[str, Tensor]:
    image, text, states = embeddings(network.unet, seed, rows)
    nothing = torch.zeros(rows, 5, dtype=torch.long)
    return network.condition(image, TextEncoding(text, states, nothing.bool(), nothing))


def test_output_is_that_of_diffusers_unet(unet: nn.Module) -> None:
    """Also when the same embedding arrives again, another one, and one that has replaced it in memory."""
    network = KandinskyDecoder(copy.deepcopy(unet))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([700, 20])
    with torch.inference_mode():
        for seed in (1, 2, 1):
            image, text, states = embeddings(unet, seed, 2)
            added = {"image_embeds": image, "text_embeds": text}
            given = states if network.reads_text else None
            expected = unet(x, t, encoder_hidden_states=given, added_cond_kwargs=added).sample
            inputs = conditioning(network, seed, 2)
            for _ in range(2):
                torch.testing.assert_close(network(x, t, **inputs), expected)


def test_embeddings_are_projected_once_per_image(unet: nn.Module) -> None:
    network, calls = KandinskyDecoder(copy.deepcopy(unet)), Counter()
    for name, module in network.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    stage = Stage("decoder", network, Schedule(beta_schedule="linear"), (4, 8, 8))
    ends = ("add_k_proj", "add_v_proj", "image_embeds", "image_proj", "text_proj")
    once = [name for name, _ in network.unet.named_modules() if name.endswith(ends)]
    assert {name.split(".")[0] for name in once} > {"encoder_hid_proj", "add_embedding", "mid_block"}
    for images in (1, 2):
        inputs = StageInputs(conditioning(network, images), conditioning(network, 10 + images))
        stage.run(inputs, make_generators([images]), StageOptions(steps=5, guidance=3.0))
        assert {name: calls[name] for name in once} == dict.fromkeys(once, images)
        assert calls["conv_in"] == 5 * images
