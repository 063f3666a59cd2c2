"""The diffusion prior as a training task."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from unclip.diffusion.schedule import Schedule, add_noise
from unclip.models.prior import Prior
from unclip.training.batch import Batch
from unclip.training.losses import sample_noise
from unclip.training.recipe import StageRecipe
from unclip.training.tasks.base import Examples, Loss, build_network
from unclip.training.tasks.frozen_clip import FrozenClip, drop_captions
from unclip.training.tasks.options import PriorOptions


class PriorTask:
    """The prior's objective: mean squared error of the clean image embedding (unCLIP, equation 2)."""

    predicts = "sample"

    def __init__(self, recipe: StageRecipe, clip: FrozenClip, examples: Examples):
        assert isinstance(recipe.task, PriorOptions)
        self.options = recipe.task
        self.sampling = recipe.sampling
        self.clip = clip
        self.examples = examples
        config = clip.clip.config
        sizes = {"embedding_dim": config.embed_dim, "num_embeddings": config.context_length}
        self.network = Prior(build_network("PriorTransformer", recipe.model, sizes, f"{recipe.source} [prior.model]"))
        self.size = config.image_size
        self.schedule = Schedule(prediction_type=self.predicts, clip=5.0)

    @torch.no_grad()
    def fit_to_data(self) -> None:
        """Set the mean and the deviation by which embeddings are whitened, as measured on examples."""
        parts = self.examples(self.size, 2048)[0].split(256)
        embeds = torch.cat([self.clip.encode_images(part) for part in parts])
        transformer = self.network.transformer
        for parameter, value in (
            (transformer.clip_mean, embeds.mean(0)),
            (transformer.clip_std, embeds.std(0).clamp(min=1e-4)),  # images that are all equal have no variance
        ):
            parameter.requires_grad_(False).copy_(value[None])

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The mean squared error of the whitened embedding, and the cosine similarity of the embeddings."""
        x0 = self.network.whiten(self.clip.encode_images(batch.images))  # b d
        drop = batch.rand() < self.options.text_drop
        text = self.clip.encode_text(drop_captions(batch.captions, drop))
        t, noise = sample_noise(x0, self.schedule, batch)
        x0_hat = network(add_noise(x0, noise, t, self.schedule), t, **self.network.condition(text))
        cosine = F.cosine_similarity(self.network.unwhiten(x0_hat.float()), self.network.unwhiten(x0)).mean()
        return F.mse_loss(x0_hat.float(), x0), {"cosine": cosine.detach()}

    def sample_grid(self) -> None:
        """None: the prior generates embeddings, not images."""
        return None

    def networks(self) -> dict[str, nn.Module]:
        """The component "prior"."""
        return {"prior": self.network.transformer}

    def stage_config(self) -> dict[str, Any]:
        """The sampling defaults."""
        return self.sampling.model_dump()
