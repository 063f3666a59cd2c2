"""CLIP as a training task (Radford et al. 2021, arXiv:2103.00020)."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from pydantic import create_model
from torch import Tensor, nn

from unclip.errors import RecipeError
from unclip.models.clip import Clip, ClipConfig
from unclip.models.tokenizer import Tokenizer
from unclip.training.losses import contrastive_loss
from unclip.training.recipe import StageRecipe
from unclip.training.tables import Table, read_table
from unclip.training.tasks.base import Loss, build_network

_FIELDS: dict[str, Any] = {field.name: (field.type, field.default) for field in fields(ClipConfig)}
ClipTable = create_model("ClipTable", __base__=Table, **_FIELDS)
"""[clip.model]: the fields of ClipConfig."""


class ClipTask:
    """CLIP's contrastive objective over a batch of images and their captions."""

    predicts = "embeddings"
    schedule = None

    def __init__(self, recipe: StageRecipe):
        where = f"{recipe.source} [clip.model]"
        config = read_clip_config(recipe.model, where)
        if config.text_width != config.embed_dim:
            raise RecipeError(f"{where}: text_width = {config.text_width} must equal embed_dim = {config.embed_dim}")
        if config.vocab_size != ClipConfig.vocab_size:
            known = ClipConfig.vocab_size
            raise RecipeError(f"{where}: vocab_size = {config.vocab_size} must be {known}, as CLIP's tokenizer")
        self.network: Clip = build_network("Clip", config.to_dict(), {}, where)
        self.tokenizer = Tokenizer(config.context_length)
        self.size = config.image_size

    def fit_to_data(self) -> None:
        """Nothing: CLIP starts from random weights."""

    def loss(self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator) -> Loss:
        """The contrastive loss, and the accuracy at rank 1 among the captions of the batch."""
        # Above 100 the similarities saturate (CLIP, section 2.5).
        with torch.no_grad():
            self.network.logit_scale.clamp_(max=torch.tensor(100.0).log().item())
        image_embed, text_embed, scale = network(images, self.tokenizer(captions).to(images.device))
        loss, rank1 = contrastive_loss(image_embed, text_embed, scale)
        return loss, {"rank1": rank1}

    def sample_grid(self) -> None:
        """None: CLIP generates no images."""
        return None

    def networks(self) -> dict[str, nn.Module]:
        """The component "clip"."""
        return {"clip": self.network}

    def stage_config(self) -> dict[str, Any]:
        """Empty: CLIP is not sampled."""
        return {}


def read_clip_config(settings: Mapping[str, Any], where: str) -> ClipConfig:
    """The table [clip.model] as a ClipConfig. Raises RecipeError for an unknown key or a wrong type."""
    return ClipConfig(**read_table(ClipTable, settings, where).model_dump())
