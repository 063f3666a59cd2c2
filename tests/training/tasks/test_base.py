"""What all tasks have in common: gradients, random numbers, the frozen CLIP, sample grids, and checks of recipes."""

from dataclasses import replace

import pytest
import torch

from tests.training.tasks.helpers import example_images, make_task, seeded, with_options
from unclip.errors import RecipeError
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.frozen_clip import FrozenClip


def test_every_weight_gets_a_gradient(task):
    """The decoder projects its conditioning by itself, before the network that is wrapped and compiled is called."""
    images, captions = example_images(task.size, 4)
    with torch.no_grad():
        for parameter in task.network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # some start at 0, and then nothing before them learns
    with torch.autocast("cpu", torch.bfloat16):
        for seed in range(8):  # several draws: the null embedding is used only where the embedding is dropped
            loss, figures = task.loss(task.network, Batch(images, captions, seeded(seed)))
            assert loss.dtype == torch.float32 and loss.ndim == 0 and loss.isfinite()
            assert all(not figure.requires_grad for figure in figures.values())
            loss.backward()
    for name, parameter in task.network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            # What no output can depend on: softmax ignores a shift of all keys.
            assert parameter.grad.abs().max() > 0 or "k_proj.bias" in name or "to_k.bias" in name, name


def test_the_loss_depends_only_on_the_generator(task):
    images, captions = example_images(task.size, 4)
    torch.manual_seed(0)
    first = task.loss(task.network.eval(), Batch(images, captions, seeded()))[0]
    again = task.loss(task.network, Batch(images, captions, seeded()))[0]
    assert torch.equal(first, again)
    if not isinstance(task, ClipTask):
        assert not torch.equal(first, task.loss(task.network, Batch(images, captions, seeded(1)))[0])


def test_the_frozen_clip_is_not_trained(task, clip: FrozenClip):
    own = {id(parameter) for parameter in clip.clip.parameters()}
    assert not own & {id(parameter) for parameter in task.network.parameters()}
    assert not any(parameter.requires_grad for parameter in clip.clip.parameters())
    assert not clip.clip.training


def test_sample_grids(recipe: Recipe, clip: FrozenClip):
    assert make_task("clip", recipe, clip).sample_grid() is None
    assert make_task("prior", recipe, clip).sample_grid() is None
    assert make_task("decoder", recipe, clip).sample_grid().size == (8 * 18 + 2, 4 * 18 + 2)
    assert make_task("inpainting_decoder", recipe, clip).sample_grid().size == (8 * 18 + 2, 6 * 18 + 2)
    assert make_task("upsampler", recipe, clip).sample_grid().size == (4 * 34 + 2, 3 * 34 + 2)


def test_sample_grids_use_the_sampling_of_the_finished_model(recipe: Recipe, clip: FrozenClip):
    decoder, upsampler = (make_task(name, recipe, clip).stage() for name in ("decoder", "upsampler"))
    assert (decoder.sampler, decoder.steps, decoder.guidance) == ("dpmpp-2m", 2, 2.0)
    assert (upsampler.sampler, upsampler.steps, upsampler.guidance) == ("ddim", 2, 1.0)


@pytest.mark.parametrize(
    ("stage", "part", "values", "says"),
    [
        ("prior", "model", {"layers": 3}, "[prior.model]: unknown key 'layers'; did you mean 'num_layers'"),
        ("prior", "task", {"text_drop": 2.0}, "[prior.task]: text_drop = 2.0 should be from 0 to 1"),
        ("decoder", "model", {"size": 18}, "[decoder.model]: size = 18 should be a multiple of 4"),
        ("decoder", "model", {"size": 20}, "[decoder.model]: size = 20 should be a multiple of 8"),
        ("decoder", "model", {"in_channels": 3}, "[decoder.model]: in_channels follows from the other settings; leave"),
        ("decoder", "model", {"class_embed_type": "timestep"}, "class_embed_type follows from the other settings"),
        ("decoder", "task", {"prediction": "epsilon"}, "prediction = 'epsilon' should be one of sample, v_prediction"),
        ("upsampler", "model", {"sample_size": 8}, "[upsampler.model]: sample_size follows from the other settings"),
        ("prior", "model", {"embedding_dim": 8}, "[prior.model]: embedding_dim follows from the other settings"),
        ("clip", "model", {"vocab_size": 100}, "[clip.model]: vocab_size = 100 must be 49408, as CLIP's tokenizer"),
        ("decoder", "model", {"size": "64"}, "size = '64' should be a whole number"),
        ("decoder", "model", {"block_out_channels": (16, 31)}, "[decoder.model]: "),
        ("decoder", "task", {"prediction": "x0"}, "[decoder.task]: prediction = 'x0' should be one of "),
        ("upsampler", "model", {"block_out": 3}, "unknown key 'block_out'; did you mean 'block_out_channels'"),
        ("upsampler", "task", {"small": 12}, "[upsampler.task]: size = 32 should be a multiple of 12"),
        ("upsampler", "task", {"crop": 12}, "crop = 12 should be a multiple of 8"),
        ("upsampler", "task", {"crop": 64}, "crop = 64 is larger than size = 32"),
        ("upsampler", "task", {"patch": 0}, "patch = 0 should be from 1 to 64"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_with_its_table(recipe, clip, stage: str, part: str, values: dict, says: str):
    table = recipe.stage(stage)
    with pytest.raises(RecipeError) as caught:
        if part == "task":
            table = with_options(stage, table, **values)
        else:
            table = replace(table, model={**table.model, **values})
        make_task(stage, replace(recipe, stages={stage: table}), clip)
    assert recipe.source in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)
