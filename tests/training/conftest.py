"""A folder of images, a recipe for networks so small that a step takes milliseconds."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.training.toy import run

TINY = """
name = "tiny"
seed = 3

[data]
kind = "folder"
path = "{pictures}"

[clip.model]
embed_dim = 16
image_size = 16
patch_size = 8
vision_width = 16
vision_layers = 1
vision_heads = 2
context_length = 13
text_width = 16
text_layers = 1
text_heads = 2

[clip.fit]
{fit}

[prior.model]
num_attention_heads = 2
attention_head_dim = 8
num_layers = 1
dropout = 0.1

[prior.fit]
{fit}

[prior.sampling]
steps = 2

[autoregressive_prior.model]
buckets = 16
waves = 8
width = 16
layers = 1
heads = 2

[autoregressive_prior.fit]
{fit}

[autoregressive_prior.sampling]
top_p = 0.9

[decoder.model]
size = 16
block_out_channels = [16, 32]
norm_num_groups = 8
layers_per_block = 1
down_block_types = ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"]
up_block_types = ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"]
cross_attention_dim = 24
attention_head_dim = 8

[decoder.fit]
{fit}

[decoder.sampling]
sampler = "dpmpp-2m"
steps = 2
guidance = 2.0

[inpainting_decoder.task]
moved = 0.5

[inpainting_decoder.fit]
{fit}

[inpainting_decoder.sampling]
steps = 3

[upsampler.model]
block_out_channels = [16, 32]
norm_num_groups = 8
layers_per_block = 1
down_block_types = ["ResnetDownsampleBlock2D", "ResnetDownsampleBlock2D"]
up_block_types = ["ResnetUpsampleBlock2D", "ResnetUpsampleBlock2D"]
add_attention = false

[upsampler.task]
size = 32
small = 16
crop = 16

[upsampler.fit]
{fit}

[upsampler.sampling]
steps = 2

[second_upsampler.model]
widths = [8, 8]
blocks = [1, 1, 1]

[second_upsampler.task]
size = 128
small = 32
smallest = 16
crop = 32
upsampled = 0.0  # so that the stage trains without the others

[second_upsampler.fit]
{fit}
"""
FIT = "batch_size = 4\nlr = 1e-3\nwarmup = 2\nworkers = 0"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve PNG files of one colour each, with their captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(12):
        Image.new("RGB", (20, 16), (20 * n, 255 - 20 * n, 128)).save(folder / f"{n}.png")
        (folder / f"{n}.txt").write_text(f"colour number {n}\n")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of all stages for those images."""
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(TINY.format(pictures=pictures, fit=FIT))
    return path


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where TensorBoard is not installed; also, importing it takes seconds."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the toy task (`tests.training.toy`) that nothing disturbed; for reading only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        run(folder := tmp_path_factory.mktemp("whole"))
    return folder
