"""Project CLIP embeddings into the decoder's cross-attention and time embedding."""

from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from unclip.models.text import TextEncoding


@dataclass(frozen=True)
class TextProjectionConfig:
    """Sizes of the projection. `time_embed_dim` is four times the U-Net's first width.

    layout_size: length of the layout vector (`models.layout`), a micro-conditioning; 0 for a decoder without layouts.
    layout_spread: grid steps from the middles of their places at which random layouts put objects.
    layout_vary: whether random layouts mirror and resize objects.
    """

    clip_embeddings_dim: int = 768
    clip_extra_context_tokens: int = 4
    time_embed_dim: int = 1280
    cross_attention_dim: int = 1536
    layout_size: int = 0
    layout_spread: int = 0
    layout_vary: bool = True

    def to_dict(self) -> dict:
        """The settings of config.json; without layouts, only those that published checkpoints have."""
        return {key: value for key, value in asdict(self).items() if self.layout_size or not key.startswith("layout_")}


class TextProjection(nn.Module):
    """CLIP embeddings and text states -> tokens for the U-Net's attention, and an addend of its time embedding.

    Ramesh et al. 2022 (arXiv:2204.06125), section 2.1. Parameters have the names of the published checkpoints.
    """

    def __init__(self, config: TextProjectionConfig):
        super().__init__()
        self.config = config
        dim, time, cross = config.clip_embeddings_dim, config.time_embed_dim, config.cross_attention_dim
        self.learned_classifier_free_guidance_embeddings = nn.Parameter(torch.zeros(dim))
        self.embedding_proj = nn.Linear(dim, time)
        self.clip_image_embeddings_project_to_time_embeddings = nn.Linear(dim, time)
        self.clip_extra_context_tokens_proj = nn.Linear(dim, config.clip_extra_context_tokens * cross)
        self.encoder_hidden_states_proj = nn.Linear(dim, cross)
        self.text_encoder_hidden_states_norm = nn.LayerNorm(cross)
        if config.layout_size:
            self.layout_proj = nn.Linear(config.layout_size, time, bias=False)
            # As large as what the embeddings add: starting from zeros, it learned next to nothing in 400 steps.
            nn.init.normal_(self.layout_proj.weight, std=0.3)

    @property
    def null_embed(self) -> Tensor:
        """The learned image embedding `d` of the unconditional branch of classifier-free guidance."""
        return self.learned_classifier_free_guidance_embeddings

    def forward(self, image_embed: Tensor, text: TextEncoding, layout: Tensor | None = None) -> dict[str, Tensor]:
        """Image embeddings `b d`, their text and layouts `b l` -> the U-Net's conditioning.

        Returns tokens `b 4+n c`, token_mask `b 4+n` bool, and time_condition `b t`.
        """
        dtype = self.null_embed.dtype  # CLIP may be in a higher precision
        image_embed, text_embed, states = image_embed.to(dtype), text.embed.to(dtype), text.states.to(dtype)
        extra = self.clip_extra_context_tokens_proj(image_embed)  # b (c 4)
        # The published weights interleave the tokens: token j takes every fourth value from j on.
        extra = rearrange(extra, "b (c k) -> b k c", k=self.config.clip_extra_context_tokens)  # b 4 c
        states = self.text_encoder_hidden_states_norm(self.encoder_hidden_states_proj(states))  # b n c
        time = self.embedding_proj(text_embed) + self.clip_image_embeddings_project_to_time_embeddings(image_embed)
        if layout is not None and self.config.layout_size:
            time = time + self.layout_proj(layout.to(dtype))
        mask = torch.cat([text.mask.new_ones(extra.shape[:2]), text.mask], dim=1)  # b 4+n
        return {"tokens": torch.cat([extra, states], dim=1), "token_mask": mask, "time_condition": time}
