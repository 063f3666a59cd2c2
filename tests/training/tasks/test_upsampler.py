"""The upsampler's task: crops, degraded small images, and differences."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.tasks.helpers import CAPTIONS, Oracle, example_images, make_task, seeded, with_options
from unclip.diffusion.noise import make_generators
from unclip.errors import RecipeError
from unclip.inference.conditions import Start
from unclip.inference.stage_inputs import StageInputs
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe
from unclip.training.recipe_tables import Sampling
from unclip.training.tasks.degradation import degrade
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.upsampler import UpsamplerTask


def rows(images: torch.Tensor) -> Batch:
    return Batch(images, [], seeded())


def test_the_condition_is_the_enlarged_small_image_of_the_crop(recipe: Recipe, clip: FrozenClip):
    task = make_task("upsampler", recipe, clip, crop=32, blur=0.0, noise=0.0)
    images = F.interpolate(example_images(4, 4)[0], size=(32, 32), mode="bicubic").clamp(-1, 1)  # smooth
    oracle = Oracle(task.codec.encode(images))
    assert task.loss(oracle, Batch(images, CAPTIONS, seeded()))[0].item() == pytest.approx(0, abs=1e-10)
    enlarged = task.codec.decode(oracle.args[0])
    assert (enlarged - images).abs().mean() < 0.03


def test_an_untrained_difference_returns_the_enlarged_image(recipe: Recipe, clip: FrozenClip):
    task = make_task("upsampler", recipe, clip, prediction="difference")
    enlarged = example_images(32, 2)[0]
    output = task.stage().run(StageInputs({"enlarged": task.codec.encode(enlarged)}), make_generators(range(2)))
    torch.testing.assert_close(output, enlarged, atol=1e-5, rtol=0)
    other = make_task("upsampler", recipe, clip, prediction="sample")
    output = other.stage().run(StageInputs({"enlarged": task.codec.encode(enlarged)}), make_generators(range(2)))
    assert (output - enlarged).abs().mean() > 0.1


def test_degrading_blurs_and_adds_noise_up_to_the_given_strength():
    images = example_images(16, 64)[0]
    torch.testing.assert_close(degrade(images, rows(images), 0.0, 0.0), images)
    noise = degrade(images, rows(images), 0.0, 0.5) - images
    strengths = noise.flatten(1).std(1)
    assert 0.4 < strengths.max() < 0.55 and strengths.min() < 0.1
    blurred = degrade(images, rows(images), 1.0, 0.0)
    left = blurred.flatten(1).std(1) / images.flatten(1).std(1)  # of the contrast
    assert left.max() < 1.001 and left.min() < 0.4 and left.mean() < 0.9
    flat = torch.full((2, 3, 16, 16), 0.25)
    torch.testing.assert_close(degrade(flat, rows(flat), 0.6, 0.0), flat)


def test_unrolled_batches_are_trained_on_the_error_of_the_finished_models_steps(recipe: Recipe, clip: FrozenClip):
    task = make_task("upsampler", recipe, clip, crop=32, blur=0.0, noise=0.0, unrolled=1.0)
    torch.manual_seed(0)
    nn.init.normal_(task.network.unet.conv_out.weight, std=0.02)
    images = F.interpolate(example_images(4, 4)[0], size=(32, 32), mode="bicubic").clamp(-0.5, 0.5)
    inputs: list[torch.Tensor] = []
    hook = task.network.register_forward_pre_hook(lambda _, given: inputs.append(torch.cat([given[0], given[2]], 1)))
    task.network.eval()
    loss = task.loss(task.network, Batch(images, CAPTIONS, seeded()))[0].item()
    hook.remove()
    assert len(inputs) == task.sampling.steps == 2
    noise, enlarged = inputs[0].chunk(2, 1)

    with torch.no_grad():
        first = task.codec.decode(task.network(noise, torch.full((4,), 999), enlarged))
    last = task.stage().run(StageInputs({"enlarged": enlarged}), make_generators(range(4)), start=Start(noise=noise))
    errors = [(each - images).abs().mean().item() for each in (first, last)]
    assert errors[0] != errors[1] and loss == pytest.approx(sum(errors) / 2, rel=1e-4)


def test_unrolling_needs_the_steps_of_ddim(recipe: Recipe, clip: FrozenClip):
    stage = recipe.stage("upsampler")
    assert isinstance(stage.sampling, Sampling)
    other = replace(recipe.stage("upsampler"), sampling=stage.sampling.model_copy(update={"sampler": "unipc"}))
    other = with_options("upsampler", other, unrolled=0.5)
    with pytest.raises(RecipeError, match=r"upsampler.task\]: unrolled needs sampler = \"ddim\""):
        UpsamplerTask(other, example_images)
