"""Batch invariance: layers that add in the same order for an image alone and in a batch, in float32 on a CPU.

The sum of floating-point numbers depends on their order, and libraries choose the order by the shape of the batch.
Usually only the last bits differ, but sampling can amplify them: few steps of a stochastic sampler made a difference of
1e-6 in the embedding one of 3 of 255 in the pixels.

These are the layers whose order was found to change most often (MKL 2024.2 and oneDNN 3.12 on an x86 processor).
Not all differences are gone: several threads, and some sizes of batches, still change last bits elsewhere.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NetworkT = TypeVar("NetworkT", bound=nn.Module)

MIN_ROWS = 4
"""From this number of rows on, MKL multiplies a row in one order. A single row, and two or three, have their own (the
same with SSE, AVX2 and AVX-512)."""
KEY_BLOCK = 16
"""Attention sums over its keys by vectors of up to 16 numbers, and then over the rest one by one. If the number of keys
is a multiple of this, then further keys that are masked add only zeros."""


def use_batch_invariant_layers(network: NetworkT) -> NetworkT:
    """Let the linear layers and torch's attention layers in `network` be batch invariant; returns `network`."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = BatchInvariantLinear
        elif type(module) is nn.MultiheadAttention and module.batch_first and module.in_proj_weight is not None:
            module.__class__ = BatchInvariantAttention
    return network


class BatchInvariantLinear(nn.Linear):
    """A `Linear` that pads its input to MIN_ROWS rows when no gradient is needed."""

    def forward(self, input: Tensor) -> Tensor:
        """`... d` -> `... e`."""
        return batch_invariant_linear(input, self.weight, self.bias)


def batch_invariant_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`... d` -> `... e`, by a weight `e d`. Pads its input to MIN_ROWS rows when no gradient is needed."""
    rows = input.numel() // weight.shape[1]
    if rows >= MIN_ROWS or torch.is_grad_enabled() or not needs_invariance(input):
        return F.linear(input, weight, bias)
    padded = F.pad(input.reshape(rows, weight.shape[1]), (0, 0, 0, MIN_ROWS - rows))
    return F.linear(padded, weight, bias)[:rows].reshape(*input.shape[:-1], weight.shape[0])


class BatchInvariantAttention(nn.MultiheadAttention):
    """A `MultiheadAttention` of tokens `b n c` to themselves.

    torch's swaps the first two dimensions, so that its products have as many rows as the batch.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens `b n c` and a mask `n n` -> `b n c`, and None. All other uses are torch's."""
        own = query is key and key is value and key_padding_mask is None and not need_weights
        if not own or self.training or torch.is_grad_enabled() or not needs_invariance(query):
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask, **kwargs)
        projected = F.linear(query, self.in_proj_weight, self.in_proj_bias)  # b n 3c
        q, k, v = rearrange(projected, "b n (three h c) -> three b h n c", three=3, h=self.num_heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(rearrange(out, "b h n c -> b n (h c)")), None


def needs_invariance(x: Tensor) -> bool:
    """Whether images of tensors like `x` are promised not to depend on the batch: in float32, on a CPU."""
    return x.dtype == torch.float32 and x.device.type == "cpu"


def keep_whole_blocks(kept: Tensor) -> Tensor:
    """The tokens to keep, `n` bool, extended so that the first run of them is a multiple of KEY_BLOCK, or all."""
    gaps = (~kept).nonzero()
    if not len(gaps):
        return kept
    first = int(gaps[0])
    extended = kept.clone()
    extended[first : -(-first // KEY_BLOCK) * KEY_BLOCK] = True
    return extended
