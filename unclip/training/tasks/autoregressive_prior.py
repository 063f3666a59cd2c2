"""The autoregressive prior as a training task."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from unclip.embeddings.principal_components import principal_components
from unclip.models.autoregressive_prior import AutoregressiveConfig, clip_sizes
from unclip.system.files import read_json
from unclip.training.batch import Batch
from unclip.training.recipe import StageRecipe
from unclip.training.recipe_tables import AutoregressiveSampling
from unclip.training.tables import check_keys
from unclip.training.tasks.base import Examples, Loss, build_network
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.options import AutoregressivePriorOptions

EXAMPLES = 4096
"""Images on which the components and the buckets are measured: four for each of 1,024 buckets."""


class AutoregressivePriorTask:
    """The objective of the autoregressive prior: the cross entropy of each code, given those before it and the text.

    Without `components` in the recipe, as many are kept as hold the fraction `variance` of the embeddings' variance.
    """

    predicts = "codes"
    schedule = None

    def __init__(self, recipe: StageRecipe, clip: FrozenClip, examples: Examples):
        assert isinstance(recipe.task, AutoregressivePriorOptions)
        assert isinstance(recipe.sampling, AutoregressiveSampling)
        self.options = recipe.task
        self.sampling = recipe.sampling
        self.clip = clip
        self.examples = examples
        self.model = recipe.model
        self.where = f"{recipe.source} [autoregressive_prior.model]"
        self.size = clip.clip.config.image_size
        check_keys(recipe.model, list(AutoregressiveConfig.__dataclass_fields__), self.where)
        # Until the components are counted, all are kept.
        self.network = self._build(recipe.model.get("components", clip.clip.config.embed_dim))

    def _build(self, components: int) -> Any:
        settings = {**self.model, "components": components}
        return build_network("AutoregressiveTransformer", settings, clip_sizes(self.clip.clip.config), self.where)

    @torch.no_grad()
    def fit_to_data(self) -> None:
        """Set the components of the embeddings and the edges of the buckets, as measured on examples."""
        images, captions = self.examples(self.size, EXAMPLES)
        embed = torch.cat([self.clip.encode_images(part) for part in images.split(256)])
        text = torch.cat([self.clip.encode_text(captions[i : i + 256]).embed for i in range(0, len(captions), 256)])
        found = principal_components(embed.split(256))
        if "components" not in self.model:
            self.network = self._build(found.count_holding(self.options.variance))
        self.network.to(embed.device).fit_quantiser(found.mean.to(embed), found.axes.to(embed), embed, text)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The mean cross entropy of all codes, and of the first code, which the text decides most, in nats."""
        captions = batch.captions
        embed = self.clip.encode_images(batch.images)  # b d
        text = self.clip.encode_text([*captions, ""])  # b+1
        dots = self.network.encode_dot(embed, text.embed[:-1])  # b
        codes = self.network.encode(embed)  # b k
        drop = batch.rand() < self.options.text_drop
        text = text.rows([len(captions) if dropped else i for i, dropped in enumerate(drop.tolist())])
        logits = network(**self.network.condition(text), dots=dots, codes=codes[:, :-1])  # b k m
        losses = F.cross_entropy(logits.float().transpose(1, 2), codes, reduction="none")  # b k
        return losses.mean(), {"first": losses[:, 0].mean().detach()}

    def sample_grid(self) -> None:
        """None: the prior generates embeddings, not images."""
        return None

    def networks(self) -> dict[str, nn.Module]:
        """The component "autoregressive_prior"."""
        return {"autoregressive_prior": self.network}

    def stage_config(self) -> dict[str, Any]:
        """The sampling defaults."""
        return self.sampling.model_dump()


def with_components_of(recipe: StageRecipe, model: Path) -> StageRecipe:
    """The recipe for a training that starts from a checkpoint: with its number of components, if none is given."""
    config = model / "autoregressive_prior" / "config.json"
    if "components" in recipe.model or not config.is_file():
        return recipe
    return replace(recipe, model={**recipe.model, "components": read_json(config).get("components")})
