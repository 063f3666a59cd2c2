"""The tiny recipe, its CLIP, and one task per stage."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.tasks.helpers import make_task
from unclip.checkpoints.networks import save_network
from unclip.training.recipe import Recipe, load_recipe
from unclip.training.recipe_tables import STAGES
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.frozen_clip import FrozenClip


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> Recipe:
    return load_recipe(tiny_recipe)


@pytest.fixture(scope="module")
def clip(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> FrozenClip:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    save_network(ClipTask(recipe.stage("clip")).network, folder, torch.float32)
    return FrozenClip.load(folder, torch.device("cpu"))


@pytest.fixture(params=STAGES)
def task(request: pytest.FixtureRequest, recipe: Recipe, clip: FrozenClip) -> Any:
    torch.manual_seed(1)
    return make_task(request.param, recipe, clip)
