"""The diffusion prior: text -> CLIP image embedding.

Ramesh et al. 2022 (arXiv:2204.06125), section 2.2: a causal transformer over the text states, the text embedding, the
timestep, the noised image embedding and a last token, whose output is the clean embedding.
"""

from diffusers.models.transformers.prior_transformer import PriorTransformer
from torch import Tensor, nn

from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.cpu.unpadded import skip_padding
from unclip.models.text import TextEncoding


class Prior(nn.Module):
    """The transformer, and the whitening of the embeddings that it denoises."""

    def __init__(self, transformer: PriorTransformer):
        super().__init__()
        self.transformer = skip_padding(use_batch_invariant_layers(transformer))

    def condition(self, text: TextEncoding) -> dict[str, Tensor]:
        """The conditioning of `forward` for a batch of prompts."""
        return {"text_embed": text.embed, "text_states": text.states, "text_mask": text.mask}

    def forward(self, x: Tensor, t: Tensor, text_embed: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Noised whitened embeddings `b d` at timesteps `b` -> the network's raw prediction, `b d`."""
        return self.transformer(
            x, t, proj_embedding=text_embed, encoder_hidden_states=text_states, attention_mask=text_mask
        ).predicted_image_embedding

    def whiten(self, embed: Tensor) -> Tensor:
        """CLIP image embeddings `b d` -> the prior's space, with mean 0 and standard deviation 1 per dimension."""
        return (embed - self.transformer.clip_mean) / self.transformer.clip_std

    def unwhiten(self, x: Tensor) -> Tensor:
        """The inverse of `whiten`: `b d` -> `b d`."""
        return x * self.transformer.clip_std + self.transformer.clip_mean
