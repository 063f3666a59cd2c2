"""The prior's transformer without padding tokens."""

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.prior_transformer import PriorTransformer
from torch import Tensor

HIDDEN = -10_000  # diffusers' bias of a token that is not to be seen


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
