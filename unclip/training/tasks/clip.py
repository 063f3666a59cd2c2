"""CLIP as a training task."""

import torch
from torch import Tensor, nn

from unclip.errors import RecipeError
from unclip.models.clip import Clip, ClipConfig
from unclip.models.tokenizer import Tokenizer
from unclip.training.losses import contrastive_loss
from unclip.training.recipe import StageRecipe, build
from unclip.training.tasks.base import Loss, new_part


class ClipTask:
    """CLIP's contrastive objective over a batch of pictures and their captions."""

    predicts = "embeddings"

    def __init__(self, recipe: StageRecipe):
        where = f"{recipe.source} [clip.model]"
        config = build(ClipConfig, recipe.model, where)
        if config.text_width != config.embed_dim:
            raise RecipeError(f"{where}: text_width = {config.text_width} must equal embed_dim = {config.embed_dim}")
        if config.vocab_size != ClipConfig.vocab_size:
            known = ClipConfig.vocab_size
            raise RecipeError(f"{where}: vocab_size = {config.vocab_size} must be {known}, as CLIP's tokenizer has it")
        self.network: Clip = new_part("Clip", config.to_dict(), {}, where)
        self.tokenizer = Tokenizer(config.context_length)
        self.size = config.image_size

    def loss(self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator) -> Loss:
        # Above 100 the similarities saturate (CLIP, section 2.5).
        with torch.no_grad():
            self.network.logit_scale.clamp_(max=torch.tensor(100.0).log().item())
        image_embed, text_embed, scale = network(images, self.tokenizer(captions).to(images.device))
        loss, rank1 = contrastive_loss(image_embed, text_embed, scale)
        return loss, {"rank1": rank1}

    def grid(self) -> None:
        return None

    def networks(self) -> dict[str, nn.Module]:
        return {"clip": self.network}
