"""The second upsampler's task: its small images, its loss, and its start."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.training.tasks.helpers import Oracle, example_images, make_task, seeded
from unclip.diffusion.noise import make_generators
from unclip.errors import RecipeError
from unclip.inference.stage_inputs import StageInputs
from unclip.models.upsampler import Upsampler, enlarge
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.tasks.degradation import displace_patches, downsample
from unclip.training.tasks.frozen_clip import FrozenClip

EXACT = {"blur": 0.0, "noise": 0.0, "upsampled": 0.0}


def rows(images: torch.Tensor, seed: int = 0) -> Batch:
    return Batch(images, [], seeded(seed))


def smooth(side: int) -> torch.Tensor:
    return F.interpolate(example_images(4, 4)[0], size=(side, side), mode="bicubic").clamp(-1, 1)


def test_the_loss_is_the_absolute_error_of_the_crop(recipe: Recipe, clip: FrozenClip):
    task = make_task("second_upsampler", recipe, clip, crop=128, **EXACT)
    images = smooth(128)
    oracle = Oracle(task.codec.encode(images) + 0.25)
    assert task.loss(oracle, rows(images))[0].item() == pytest.approx(0.25, abs=1e-5)
    enlarged = task.codec.decode(oracle.args[0])
    torch.testing.assert_close(enlarged, enlarge(downsample(images, 32), (128, 128)), atol=1e-5, rtol=0)


def test_an_untrained_one_returns_the_enlarged_image(recipe: Recipe, clip: FrozenClip):
    task = make_task("second_upsampler", recipe, clip)
    enlarged = smooth(128)
    output = task.stage().run(StageInputs({"enlarged": task.codec.encode(enlarged)}), make_generators(range(4)))
    torch.testing.assert_close(output, enlarged, atol=1e-5, rtol=0)


def test_crops_lie_on_pixels_of_the_smallest_image(recipe: Recipe, clip: FrozenClip):
    task = make_task("second_upsampler", recipe, clip, crop=32, **EXACT)
    place = torch.arange(128.0).expand(1, 3, 128, 128)
    corners = {int(task.crop(rows(place, seed))[0, 0, 0, 0]) for seed in range(60)}
    assert corners == set(range(0, 97, 8))
    assert task.crop(rows(place[..., :32, :32])).shape == (1, 3, 32, 32)  # data that are crops already


def test_a_fraction_of_the_small_images_is_upsampled(recipe: Recipe, clip: FrozenClip, monkeypatch):
    task = make_task("second_upsampler", recipe, clip, crop=128, blur=0.0, noise=0.0, grain=0.0, upsampled=0.5)
    seen = []

    def upsample(images: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        seen.append(images)
        assert len(images) == len(seeds)
        return torch.full((len(images), 3, 32, 32), 9.0)

    monkeypatch.setattr(task, "upsample", upsample)
    small = task.make_small(smooth(128).repeat(16, 1, 1, 1), rows(smooth(128).repeat(16, 1, 1, 1)))
    made = (small == 9).flatten(1).all(1)
    assert 20 < made.sum() < 44 and seen[0].shape == (made.sum(), 3, 16, 16)
    torch.testing.assert_close(small[~made], downsample(smooth(128), 32).repeat(16, 1, 1, 1)[~made])


def test_the_first_upsampler_enlarges_crops(recipe: Recipe, clip: FrozenClip):
    task = make_task("second_upsampler", recipe, clip)
    first = make_task("upsampler", recipe, clip).stage()
    assert isinstance(first.network, Upsampler)
    task.upsampler = first.__class__(**{**vars(first), "any_size": True})
    assert task.upsample(smooth(8), [0, 1, 2, 3]).shape == (4, 3, 16, 16)
    assert task.upsample(smooth(8)[:0], []).shape == (0, 3, 16, 16)


def test_patches_are_displaced_and_tinted_as_a_whole():
    edge = torch.cat([torch.full((64, 3, 16, 8), -1.0), torch.full((64, 3, 16, 8), 1.0)], 3)
    untouched = displace_patches(edge, rows(edge), 4, shift=0.0, tint=0.0)
    torch.testing.assert_close(untouched, edge, atol=1e-5, rtol=0)
    flat = torch.zeros(64, 3, 16, 16)
    tinted = displace_patches(flat, rows(flat), 4, shift=1.0, tint=0.2)
    levels = [len(image[0].unique()) for image in tinted]
    assert max(levels) <= 25 and 0.1 < tinted.flatten(1).std(1).max() < 0.5
    moved = displace_patches(edge, rows(edge), 4, shift=1.0, tint=0.0)
    at = moved[:, 0].mean(2)  # of each row of pixels: where its edge is
    assert at.std(1).max() > 0.05 and (at[:, 0] - at[:, 15]).abs().max() > 0.05


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("smallest = 16", "smallest = 8", "[second_upsampler.task] smallest = 8 must equal [decoder.model] size = 16"),
        ("small = 32", "small = 64", "[second_upsampler.task] small = 64 must equal [upsampler.task] size = 32"),
    ],
)
def test_sizes_fit_the_stages_before(tiny_recipe: Path, tmp_path: Path, old: str, new: str, message: str):
    text = tiny_recipe.read_text()
    assert text.count(old) == 1
    (path := tmp_path / "recipe.toml").write_text(text.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"crop": 36}, "crop = 36 should be a multiple of 8"),
        ({"crop": 256}, "crop = 256 is larger than size = 128"),
        ({"size": 100}, "size = 100 should be a multiple of 32"),
    ],
)
def test_sizes_fit_each_other(recipe: Recipe, clip: FrozenClip, change: dict, message: str):
    with pytest.raises(RecipeError, match=message):
        make_task("second_upsampler", recipe, clip, **change)
