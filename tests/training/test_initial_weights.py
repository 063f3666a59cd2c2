"""--init with a decoder that lacks inputs of the recipe's: the new ones begin at zero."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import CLIP, DECODER, DECODER_TEXT, TEXT_PROJ, tiny_network
from tests.training.tasks.helpers import example_images
from unclip.checkpoints.networks import save_network
from unclip.errors import CheckpointError
from unclip.models.decoder import Decoder
from unclip.models.layout import LAYOUT_SIZE, MAP_CHANNELS, random_layout
from unclip.models.text import TextEncoding
from unclip.training.data.options import SceneTable
from unclip.training.initial_weights import check_initial_weights, load_initial_weights
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.stages import new_task
from unclip.training.tasks.base import Task
from unclip.training.tasks.frozen_clip import FrozenClip

HINT = 48 + 16
LAYOUTS = {"layout_size": LAYOUT_SIZE, "layout_spread": 1}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe)


@pytest.fixture(scope="module")
def clip() -> FrozenClip:
    return FrozenClip(tiny_network("Clip", CLIP), CPU)


def new_decoder(recipe: Recipe, clip: FrozenClip, layouts: bool) -> Task:
    table = recipe.stage("decoder")
    return new_task("decoder", replace(table, data_options=SceneTable(layouts=layouts, spread=1)), clip, example_images)


def save_decoder(folder: Path, inputs: int, layouts: bool, **other: Any) -> Decoder:
    """Write a decoder with so many further inputs into a checkpoint folder, and return it."""
    config = {**DECODER, "in_channels": 48 + inputs, **other}
    projection = {**TEXT_PROJ, **LAYOUTS} if layouts else TEXT_PROJ
    parts = {
        "decoder": tiny_network("UNet2DConditionModel", config, 1),
        "text_proj": tiny_network("TextProjection", projection, 2),
        "decoder_text": tiny_network("TextEncoder", DECODER_TEXT, 3),
    }
    for name, network in parts.items():
        save_network(network, folder / name, torch.float32)
    return Decoder(parts["text_proj"], parts["decoder"], 48, parts["decoder_text"])


def output(network: Decoder, text: TextEncoding, hint: bool, layout: bool) -> torch.Tensor:
    """The output of a decoder, with an image of which a half is known, and a layout, if wanted."""
    generator = torch.Generator().manual_seed(3)
    x, image, embed = (torch.randn(2, *shape, generator=generator) for shape in ((48, 4, 4), (48, 4, 4), (16,)))
    known = torch.zeros(2, 48, 4, 4)
    known[..., :2] = 1
    given = {"layout": torch.tensor([random_layout(i, 1) for i in range(2)])} if layout else {}
    with torch.no_grad():
        condition = network.condition(embed, text, *((image, known) if hint else ()), **given)
        return network.eval()(x, torch.tensor([10, 500]), **condition)


@pytest.mark.parametrize(("inputs", "layouts"), [(0, False), (HINT, False), (MAP_CHANNELS, True)])
def test_a_decoder_that_gets_inputs_computes_the_same(recipe, clip, tmp_path: Path, inputs: int, layouts: bool):
    before = save_decoder(tmp_path, inputs, layouts)
    task = new_decoder(recipe, clip, layouts=True)
    load_initial_weights(task, tmp_path)
    network: Any = task.network
    assert network.has_layouts and network.has_inpainting_inputs
    text = clip.encode_text(["a cat", "a dog"])
    expected = output(before, text, bool(before.has_inpainting_inputs), layouts)
    # A new input does not matter; one that was there before does.
    torch.testing.assert_close(output(network, text, True, True), expected, rtol=1e-4, atol=1e-4)
    if inputs:
        less = output(network, text, layouts, not layouts)
        assert not torch.allclose(less, expected, atol=1e-3)
    new = network.unet.conv_in.weight[:, 48:].detach()
    assert new.shape[1] - inputs == int((new == 0).flatten(2).all(2).all(0).sum())


def test_the_new_inputs_learn(recipe, clip, tmp_path: Path):
    save_decoder(tmp_path, HINT, False)
    task = new_decoder(recipe, clip, layouts=True)
    load_initial_weights(task, tmp_path)
    network: Any = task.network
    layout = torch.tensor([random_layout(i, 1) for i in range(2)])
    condition = network.condition(torch.randn(2, 16), clip.encode_text(["a cat", "a dog"]), layout=layout)
    network(torch.randn(2, 48, 4, 4), torch.tensor([10, 500]), **condition).square().mean().backward()
    assert network.unet.conv_in.weight.grad[:, 48 + HINT :].abs().max() > 0
    assert network.projection.layout_proj.weight.grad.abs().max() > 0


def test_other_differences_are_one_error(recipe, clip, tmp_path: Path):
    task = new_decoder(recipe, clip, layouts=True)
    save_decoder(tmp_path, HINT, False, block_out_channels=[24, 32])
    with pytest.raises(
        CheckpointError, match=r"does not have the recipe's sizes \(.* is .* and not .*\): use a model of"
    ):
        check_initial_weights(task, tmp_path)
    save_decoder(tmp_path, HINT - 4, False)  # a mask of another kind
    with pytest.raises(CheckpointError, match=r"decoder .* sizes \(conv_in.weight is 16x108x3x3 and not 16x129x3x3\)"):
        check_initial_weights(task, tmp_path)
    save_decoder(tmp_path, HINT + MAP_CHANNELS, True)  # more inputs than the recipe's
    with pytest.raises(CheckpointError, match="does not have the recipe's sizes"):
        check_initial_weights(new_decoder(recipe, clip, layouts=False), tmp_path)
    save_decoder(tmp_path, HINT, False, norm_num_groups=4)
    with pytest.raises(CheckpointError, match="norm_num_groups = 4, and the recipe 8"):
        check_initial_weights(task, tmp_path)
