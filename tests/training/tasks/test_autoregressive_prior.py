"""The autoregressive prior's task: the quantiser is measured, the loss is the likelihood, captions are left out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.tasks.helpers import example_images, make_task, seeded
from unclip.embeddings.principal_components import principal_components
from unclip.errors import RecipeError
from unclip.system.files import write_json
from unclip.training.batch import Batch
from unclip.training.recipe import Recipe
from unclip.training.stages import new_task
from unclip.training.tasks.autoregressive_prior import EXAMPLES, with_components_of
from unclip.training.tasks.frozen_clip import FrozenClip

NAME = "autoregressive_prior"


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99, 1])
def test_as_many_components_are_kept_as_hold_the_variance(recipe: Recipe, clip: FrozenClip, variance: float):
    task = make_task(NAME, recipe, clip, variance=variance)
    embed = clip.encode_images(example_images(task.size, EXAMPLES)[0])
    kept = task.network.config.components
    spread = torch.linalg.eigvalsh(torch.cov(embed.double().T)).flip(0)
    share = spread.cumsum(0) / spread.sum()
    assert share[kept - 1] >= variance - 1e-6 and (kept == 1 or share[kept - 2] < variance)
    restored = task.network.decode(task.network.encode(embed))
    lost = (embed - restored).square().sum() / (embed - embed.mean(0)).square().sum()
    assert lost < 1 - share[kept - 1] + 0.1  # 16 buckets of each, of which the outer ones are wide


def test_a_given_number_of_components_is_kept(recipe: Recipe, clip: FrozenClip):
    table = recipe.stage(NAME)
    task = new_task(NAME, replace(table, model={**table.model, "components": 3}), clip, example_images)
    task.fit_to_data()
    assert task.network.config.components == 3


@pytest.mark.parametrize(
    "model, message",
    [
        ({"components": 17}, r"\[autoregressive_prior.model\].*components is 17, more than the 16"),
        ({"embed_dim": 4}, "embed_dim follows from the other settings; leave it out"),
        ({"layer": 4}, "unknown key 'layer'; did you mean 'layers'"),
        ({"heads": 3}, "even multiple of heads"),
    ],
)
def test_mistakes_in_the_table_are_found_before_any_training(recipe: Recipe, clip: FrozenClip, model, message: str):
    table = recipe.stage(NAME)
    with pytest.raises(RecipeError, match=message):
        new_task(NAME, replace(table, model={**table.model, **model}), clip, example_images)


def test_a_start_from_a_model_takes_its_number_of_components(recipe: Recipe, tmp_path: Path):
    table = recipe.stage(NAME)
    assert with_components_of(table, tmp_path) is table
    (tmp_path / NAME).mkdir()
    write_json(tmp_path / NAME / "config.json", {"components": 7})
    assert with_components_of(table, tmp_path).model["components"] == 7
    own = replace(table, model={"components": 2})
    assert with_components_of(own, tmp_path) is own


class Recorder(nn.Module):
    """Logits that make given codes certain up to a known probability; remembers its inputs."""

    def __init__(self, codes: Tensor, buckets: int):
        super().__init__()
        self.logits = nn.functional.one_hot(codes, buckets).float() * 2

    def forward(self, **inputs: Tensor) -> Tensor:
        self.inputs = inputs
        return self.logits


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_the_loss_is_the_cross_entropy_of_the_images_codes(recipe: Recipe, clip: FrozenClip, fraction: float):
    task = make_task(NAME, recipe, clip, text_drop=fraction)
    images, captions = example_images(task.size, 4)
    embed = clip.encode_images(images)
    codes = task.network.encode(embed)
    recorder = Recorder(codes, 16)
    loss, figures = task.loss(recorder, Batch(images, captions, seeded()))
    expected = -(torch.tensor(2.0) - (torch.tensor(2.0).exp() + 15).log())
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(figures["first"], expected)
    assert torch.equal(recorder.inputs["codes"], codes[:, :-1])
    text = clip.encode_text([""] * 4 if fraction else captions)
    torch.testing.assert_close(recorder.inputs["text_embed"], text.embed)
    torch.testing.assert_close(recorder.inputs["text_states"], text.states)
    # The dot product is with the caption's own embedding, even where the text is left out.
    dots = task.network.encode_dot(embed, clip.encode_text(captions).embed)
    assert torch.equal(recorder.inputs["dots"], dots)


def test_the_network_learns_codes_that_the_text_decides(recipe: Recipe, clip: FrozenClip):
    task = make_task(NAME, recipe, clip, text_drop=0.0)
    images, captions = example_images(task.size, 4)
    optimizer = torch.optim.AdamW(task.network.parameters(), lr=1e-2)
    first = None
    for step in range(60):
        loss, _ = task.loss(task.network, Batch(images, captions, seeded(step)))
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 4
    components = principal_components([clip.encode_images(images)])
    assert len(components.axes) == 3 and components.count_holding(1.0) == 3
