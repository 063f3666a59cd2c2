"""The diffusion prior: from a text to the CLIP embedding of a picture of it.

Ramesh et al. 2022 (arXiv:2204.06125), section 2.2: a causal transformer over the text's states, its embedding, the
timestep, the noised image embedding and a last token, whose output is the clean embedding.
"""

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.prior_transformer import PriorTransformer
from torch import Tensor, nn

from unclip.models.clip import TextEncoding

HIDDEN = -10_000  # diffusers' bias of a token that is not to be seen


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


def without_padding(transformer: PriorTransformer) -> PriorTransformer:
    """Let the blocks of `transformer` leave out what nothing looks at where no gradient is wanted; returns it."""
    for block in transformer.transformer_blocks:
        # Without a learned last token, diffusers counts from the first one where the output is.
        if type(block) is BasicTransformerBlock and transformer.prd_embedding is not None:
            block.__class__ = UnpaddedBlock
    return transformer


class UnpaddedBlock(BasicTransformerBlock):
    """A block that, on the CPU, computes only the tokens that the last one sees, whose output is the prior's.

    The published prior has 81 tokens, of which a short text's padding is 60: without it a step takes a third.
    """

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: object, **kwargs: object
    ) -> Tensor:
        """Tokens `b n c`, or what the block before left of them, and the bias `b*heads n n` -> as many, or fewer."""
        # Elsewhere a shape that depends on values would hold up the queue.
        if attention_mask is not None and hidden_states.device.type == "cpu" and not torch.is_grad_enabled():
            seen = (attention_mask[:, -1] > HIDDEN / 2).any(0)  # n
            if not seen.all():
                if hidden_states.shape[1] == len(seen):
                    hidden_states = hidden_states[:, seen]
                attention_mask = attention_mask[:, seen][:, :, seen]
        return super().forward(hidden_states, attention_mask, *args, **kwargs)
