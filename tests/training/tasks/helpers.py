"""Inputs of the task tests: captions, images, tasks with changed options, and a network that knows the answer."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unclip.training.recipe import Recipe, StageRecipe
from unclip.training.stages import new_task
from unclip.training.tables import read_table
from unclip.training.tasks.frozen_clip import FrozenClip

CAPTIONS = ["a red cat", "a dog", "two blue apples on a pink background", "a tree"]


def example_images(size: int, count: int = 16) -> tuple[Tensor, list[str]]:
    """Random images `count 3 size size` in [-1, 1] and captions."""
    generator = torch.Generator().manual_seed(size)
    return torch.rand(count, 3, size, size, generator=generator) * 2 - 1, [CAPTIONS[i % 4] for i in range(count)]


def make_task(name: str, recipe: Recipe, clip: FrozenClip, **options: Any) -> Any:
    """The task of a stage with some of its options changed."""
    decoder = make_task("decoder", recipe, clip).stage() if name == "inpainting_decoder" else None
    task = new_task(name, with_options(name, recipe.stage(name), **options), clip, example_images, decoder)
    task.fit_to_data()
    return task


def with_options(name: str, stage: StageRecipe, **options: Any) -> StageRecipe:
    """A stage's recipe with some of its task's options changed, validated as those of a file."""
    values = {**stage.task.model_dump(), **options}
    return replace(stage, task=read_table(type(stage.task), values, f"{stage.source} [{name}.task]"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Oracle(nn.Module):
    """A network that returns a known answer, and remembers its inputs."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor, *args: Tensor, **conditioning: Tensor) -> Tensor:
        self.x, self.t, self.args, self.conditioning = x, t, args, conditioning
        return self.answer
