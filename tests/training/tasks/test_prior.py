"""The prior's task: whitened embeddings, and captions left out."""

import pytest
import torch

from tests.training.tasks.helpers import CAPTIONS, Oracle, example_images, make_task, seeded
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.prior import PriorTask


def test_the_prior_learns_whitened_embeddings(recipe: Recipe, clip: FrozenClip):
    task = make_task("prior", recipe, clip)
    white = task.network.whiten(clip.encode_images(example_images(task.size, 2048)[0]))
    torch.testing.assert_close(white.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(white.std(0), torch.ones(16), atol=1e-3, rtol=0)
    images, captions = example_images(task.size, 4)
    oracle = Oracle(task.network.whiten(clip.encode_images(images)))
    loss, figures = task.loss(oracle, Batch(images, captions, seeded()))
    assert loss == 0 and figures["cosine"].item() == pytest.approx(1)


def test_the_loss_is_finite_if_all_images_are_equal(recipe: Recipe, clip: FrozenClip):
    task = PriorTask(recipe.stage("prior"), clip, lambda size, count: (torch.zeros(count, 3, size, size), []))
    task.fit_to_data()
    assert task.loss(task.network, Batch(torch.zeros(4, 3, 16, 16), CAPTIONS, seeded()))[0].isfinite()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_captions_are_left_out(recipe: Recipe, clip: FrozenClip, monkeypatch, fraction: float):
    task, texts = make_task("prior", recipe, clip, text_drop=fraction), []
    condition = task.network.condition

    def record(*args, **options):
        texts.append(args[0])
        return condition(*args, **options)

    monkeypatch.setattr(task.network, "condition", record)
    images, captions = example_images(task.size, 4)
    task.loss(task.network, Batch(images, captions, seeded()))
    expected = clip.encode_text([""] * 4 if fraction else captions)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(texts[0][:4], expected[:4], strict=True))
