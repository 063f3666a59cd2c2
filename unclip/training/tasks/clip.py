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
from unclip.training.batch import Batch
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

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The contrastive loss, and the accuracy at rank 1 among the captions of the whole batch."""
        # Above 100 the similarities saturate (CLIP, section 2.5).
        with torch.no_grad():
            self.network.logit_scale.clamp_(max=torch.tensor(100.0).log().item())
        if batch.divisions == 1:
            loss, rank1 = contrastive_loss(*self._encode(network, batch), batch.processes)
            return loss, {"rank1": rank1}
        gradients, value, rank1 = batch.once(lambda _: self._cache_gradients(batch))
        rows = slice(batch.number * len(batch), (batch.number + 1) * len(batch))
        image, text, scale = self._encode(network, batch)
        parts = zip((image, text), (gradients[0][rows], gradients[1][rows]), strict=True)
        # The mean over the parts has the gradient of the whole.
        loss = sum((part.float() * gradient).sum() for part, gradient in parts) * batch.divisions
        loss = loss + scale.float() * gradients[2]
        return value + loss - loss.detach(), {"rank1": rank1}

    def _encode(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of images and captions, `b d` each, and the log of the inverse temperature."""
        return network(batch.images, self.tokenizer(batch.captions).to(batch.images.device))

    def _cache_gradients(self, batch: Batch) -> tuple[list[Tensor], Tensor, Tensor]:
        """The gradients of the loss by the embeddings `b d` of all parts and by the scale; the loss; rank 1.

        The loss compares all rows with all others, and the activations of one part only are in memory at a time: Gao
        et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (arXiv:2101.06983).
        """
        with torch.no_grad():
            parts = [self._encode(self.network, part) for part in batch.own.parts(batch.divisions)]
        images, texts, scales = zip(*parts, strict=True)
        leaves = [value.float().requires_grad_() for value in (torch.cat(images), torch.cat(texts), scales[0].clone())]
        with torch.enable_grad():
            loss, rank1 = contrastive_loss(leaves[0], leaves[1], leaves[2], batch.processes)
        return list(torch.autograd.grad(loss, leaves)), loss.detach(), rank1

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
