"""The diffusion prior: from a text to the CLIP embedding of a picture of it.

Ramesh et al. 2022 (arXiv:2204.06125), section 2.2: a causal transformer over the text's states, its embedding, the
timestep, the noised image embedding and a last token, whose output is the clean embedding.
"""

from diffusers.models.transformers.prior_transformer import PriorTransformer
from torch import Tensor, nn

from unclip.models.cpu.unpadded import without_padding
from unclip.models.text import TextEncoding


class Prior(nn.Module):
    """The transformer, and the whitening of the embeddings it works on."""

    def __init__(self, transformer: PriorTransformer):
        super().__init__()
        self.transformer = without_padding(transformer)

    def condition(self, text: TextEncoding) -> dict[str, Tensor]:
        """The conditioning of `forward` for a text."""
        return {"text_embed": text.embed, "text_states": text.states, "text_mask": text.mask}

    def forward(self, x: Tensor, t: Tensor, text_embed: Tensor, text_states: Tensor, text_mask: Tensor) -> Tensor:
        """Noised whitened embedding `b d` at timesteps `b` -> the network's raw prediction, `b d`."""
        return self.transformer(
            x, t, proj_embedding=text_embed, encoder_hidden_states=text_states, attention_mask=text_mask
        ).predicted_image_embedding

    def whiten(self, embed: Tensor) -> Tensor:
        """CLIP image embedding `b d` -> the space that the prior works in: mean 0, deviation 1 a dimension."""
        return (embed - self.transformer.clip_mean) / self.transformer.clip_std

    def unwhiten(self, x: Tensor) -> Tensor:
        """The inverse of `whiten`."""
        return x * self.transformer.clip_std + self.transformer.clip_mean
