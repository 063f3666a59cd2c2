"""CLIP's task: the contrastive loss and its temperature."""

import pytest
import torch

from tests.training.tasks.helpers import CAPTIONS, make_task, seeded
from unclip.errors import RecipeError
from unclip.models.clip import ClipConfig
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe
from unclip.training.tasks.clip import read_clip_config
from unclip.training.tasks.frozen_clip import FrozenClip


def test_the_loss_is_zero_if_every_image_is_nearest_to_its_caption(recipe: Recipe, clip: FrozenClip):
    task = make_task("clip", recipe, clip)
    with torch.no_grad():
        task.network.logit_scale.fill_(9.0)
    same = lambda images, tokens: (torch.eye(4), torch.eye(4), task.network.logit_scale)  # noqa: E731
    loss, figures = task.loss(same, Batch(torch.zeros(4, 3, 16, 16), CAPTIONS, seeded()))
    assert figures["rank1"] == 1 and loss < 1e-6
    assert task.network.logit_scale.exp().item() == pytest.approx(100)  # CLIP, section 2.5


def test_the_model_table_is_typed():
    assert read_clip_config({"embed_dim": 8, "quick_gelu": True}, "x") == ClipConfig(embed_dim=8, quick_gelu=True)
    with pytest.raises(RecipeError, match=r"^x: unknown key 'embed_dims'; did you mean 'embed_dim'"):
        read_clip_config({"embed_dims": 8}, "x")
