"""The diffusion prior as a training task."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unclip.diffusion.schedule import Schedule, add_noise
from unclip.models.prior import Prior
from unclip.training.losses import draw_noise
from unclip.training.recipe import StageRecipe, build
from unclip.training.tasks.base import Examples, Loss, new_part
from unclip.training.tasks.frozen_clip import FrozenClip, leave_out
from unclip.training.tasks.options import PriorOptions


class PriorTask:
    """The prior's objective: the clean embedding, by mean squared error (unCLIP, equation 2)."""

    predicts = "sample"

    def __init__(self, recipe: StageRecipe, clip: FrozenClip, examples: Examples):
        self.options = build(PriorOptions, recipe.task, f"{recipe.source} [prior.task]")
        self.clip = clip
        config = clip.clip.config
        sizes = {"embedding_dim": config.embed_dim, "num_embeddings": config.context_length}
        self.network = Prior(new_part("PriorTransformer", recipe.model, sizes, f"{recipe.source} [prior.model]"))
        self.size = config.image_size
        self.schedule = Schedule(prediction_type=self.predicts, clip=5.0)
        embeds = torch.cat([clip.image(part) for part in examples(self.size, 2048)[0].split(256)])
        transformer = self.network.transformer
        for parameter, value in (
            (transformer.clip_mean, embeds.mean(0)),
            (transformer.clip_std, embeds.std(0).clamp(min=1e-4)),  # a single picture has no spread
        ):
            parameter.requires_grad_(False).copy_(value[None])

    def loss(self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator) -> Loss:
        x0 = self.network.whiten(self.clip.image(images))  # b d
        drop = torch.rand(len(x0), generator=generator) < self.options.text_drop
        text = self.clip.text(leave_out(captions, drop))
        t, noise = draw_noise(x0, self.schedule, generator)
        x0_hat = network(add_noise(x0, noise, t, self.schedule), t, **self.network.condition(text))
        cosine = F.cosine_similarity(self.network.unwhiten(x0_hat.float()), self.network.unwhiten(x0)).mean()
        return F.mse_loss(x0_hat.float(), x0), {"cosine": cosine.detach()}

    def grid(self) -> None:
        return None

    def networks(self) -> dict[str, nn.Module]:
        return {"prior": self.network.transformer}
