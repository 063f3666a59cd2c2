"""The upsampler's task: crops, degraded small images, and differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.tasks.helpers import CAPTIONS, Oracle, example_images, make_task, seeded
from unclip.diffusion.noise import make_generators
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe
from unclip.training.tasks.degradation import degrade
from unclip.training.tasks.frozen_clip import FrozenClip


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
    task = make_task("upsampler", recipe, clip)
    torch.manual_seed(0)
    nn.init.normal_(task.network.unet.conv_out.weight, std=0.02)
    task.network.eval()
    images = F.interpolate(example_images(4, 4)[0], size=(32, 32), mode="bicubic").clamp(-0.5, 0.5)
    enlarged = task.codec.encode(images)
    loss = task.unrolled_loss(task.network, task.codec.encode(images), enlarged, range(4))
    stage, inputs = task.stage(), StageInputs({"enlarged": enlarged})
    found = [stage.run(inputs, make_generators(range(4)), StageOptions(steps)) for steps in (1, 2)]
    assert task.sampling.steps == 2
    first, last = ((each - images).abs().mean().item() for each in found)
    assert first != pytest.approx(last, rel=1e-3) and loss.item() == pytest.approx((first + last) / 2, rel=1e-4)


def test_the_unrolled_fraction_of_batches_has_the_unrolled_loss(recipe: Recipe, clip: FrozenClip):
    images = F.interpolate(example_images(4, 4)[0], size=(32, 32), mode="bicubic").clamp(-1, 1)
    calls = {}
    for fraction in (0.0, 1.0):
        task = make_task("upsampler", recipe, clip, crop=32, unrolled=fraction)
        counter = Counter(task.codec.encode(images))
        task.loss(counter, Batch(images, CAPTIONS, seeded()))
        calls[fraction] = counter.calls
    assert calls == {0.0: 1, 1.0: 2}


class Counter(Oracle):
    """Counts how often it is called."""

    calls = 0

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(*args)
