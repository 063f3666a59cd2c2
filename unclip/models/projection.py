"""Project CLIP embeddings into what the decoder attends to."""

from dataclasses import asdict, dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from unclip.models.text import TextEncoding


@dataclass(frozen=True)
class TextProjectionConfig:
    """Sizes of the projection; `time_embed_dim` is four times the U-Net's first width."""

    clip_embeddings_dim: int = 768
    clip_extra_context_tokens: int = 4
    time_embed_dim: int = 1280
    cross_attention_dim: int = 1536

    def to_dict(self) -> dict:
        return asdict(self)


class TextProjection(nn.Module):
    """CLIP embeddings and text states -> what the U-Net attends to, and what joins its time embedding.

    The parameters carry the names of the published checkpoints.
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

    @property
    def null_embed(self) -> Tensor:
        """The embedding that stands for "no picture given" in the unconditional branch, `d`."""
        return self.learned_classifier_free_guidance_embeddings

    def forward(self, image_embed: Tensor, text: TextEncoding) -> dict[str, Tensor]:
        """`b d` and a text -> tokens `b 4+n c`, their mask `b 4+n`, and time conditioning `b t`."""
        dtype = self.null_embed.dtype  # CLIP may be in a higher precision
        image_embed, text_embed, states = image_embed.to(dtype), text.embed.to(dtype), text.states.to(dtype)
        extra = self.clip_extra_context_tokens_proj(image_embed)
        # The published weights hold the tokens interleaved: token j takes every fourth value from j on.
        extra = rearrange(extra, "b (c k) -> b k c", k=self.config.clip_extra_context_tokens)
        states = self.text_encoder_hidden_states_norm(self.encoder_hidden_states_proj(states))
        time = self.embedding_proj(text_embed) + self.clip_image_embeddings_project_to_time_embeddings(image_embed)
        mask = torch.cat([text.mask.new_ones(extra.shape[:2]), text.mask], dim=1)
        return {"tokens": torch.cat([extra, states], dim=1), "token_mask": mask, "time_condition": time}
