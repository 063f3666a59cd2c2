"""Batch invariance: layers that add in the same order for an image alone and in a batch, in float32 on a CPU.

The sum of floating-point numbers depends on their order, and libraries choose the order by the shape of the batch.
Usually only the last bits differ, but sampling can amplify them without bound: few steps, strong guidance, a stochastic
sampler and a prompt far from the training data turned 1e-7 into 5 of 255. So no bound on the difference of two images
follows from a bound on rounding: the promise of 1/255 rests on every layer giving the same bits, and the tolerance
only covers an amplification that stays below half a level.

The same bits rest on these facts, each found by comparing every layer's output for 1 to 40 images (tests/models/cpu):

- Linear layers: MKL adds a row in one order if the rows are a multiple of ROWS (`BatchInvariantLinear`).
- Convolutions: oneDNN adds in one order for any number of images. Torch calls it for some numbers of images only, and
  another library for one image, or for fewer than 16 (`BatchInvariantConv2d`).
- Attention over tokens: products per image (`BatchInvariantAttention`); masked keys add zeros in whole blocks
  (`keep_whole_blocks`).
- Norms, activations and resizing work on each image by itself.
- Noise: each image has its own generator on the CPU.

They were measured with MKL 2024.2 and oneDNN 3.7 and 3.12 on an x86 processor with AVX-512, with one thread, two and
eight. Activations and sinusoids are computed by vectors of up to 32 values, and the rest one by one: the last bits are
the same only if an image's values are a multiple of 32, as they are in every published size. The facts do not reach
across numbers of threads, machines or versions of torch: those change last bits, alone and in a batch alike. Nor to
bfloat16 or a GPU, where nothing is promised.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

NetworkT = TypeVar("NetworkT", bound=nn.Module)

ROWS = 4
"""MKL multiplies this many rows at a time. Fewer have an order of their own (the same with SSE, AVX2 and AVX-512): one
to three rows alone, and with several threads also the last ones of 5, 6, 7, 9, ... rows."""
KEY_BLOCK = 16
"""Attention sums over its keys by vectors of up to 16 numbers, and then over the rest one by one. If the number of keys
is a multiple of this, then further keys that are masked add only zeros."""


def use_batch_invariant_layers(network: NetworkT) -> NetworkT:
    """Let linear layers, convolutions and torch's attention in `network` be batch invariant; returns `network`."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = BatchInvariantLinear
        elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = BatchInvariantConv2d
        elif type(module) is nn.MultiheadAttention and module.batch_first and module.in_proj_weight is not None:
            module.__class__ = BatchInvariantAttention
    return network


class BatchInvariantLinear(nn.Linear):
    """A `Linear` that pads its input to a multiple of ROWS rows when no gradient is needed."""

    def forward(self, input: Tensor) -> Tensor:
        """`... d` -> `... e`."""
        return batch_invariant_linear(input, self.weight, self.bias)


def batch_invariant_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`... d` -> `... e`, by a weight `e d`. Pads its input to a multiple of ROWS rows when no gradient is needed."""
    rows = input.numel() // weight.shape[1]
    missing = -rows % ROWS
    if missing == 0 or torch.is_grad_enabled() or not needs_invariance(input):
        return F.linear(input, weight, bias)
    padded = F.pad(input.reshape(rows, weight.shape[1]), (0, 0, 0, missing))
    return F.linear(padded, weight, bias)[:rows].reshape(*input.shape[:-1], weight.shape[0])


class BatchInvariantConv2d(nn.Conv2d):
    """A `Conv2d` that calls oneDNN for any number of images when no gradient is needed.

    Torch's own choice depends on the number of images, their size and the number of threads (`use_mkldnn` in
    aten/src/ATen/native/Convolution.cpp).
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`b c h w` -> `b d h w`."""
        batch = input.dim() == 4 and len(input) > 0
        if not batch or torch.is_grad_enabled() or not needs_invariance(input) or not has_onednn():
            return super()._conv_forward(input, weight, bias)
        geometry: Any = self.padding, self.stride, self.dilation, self.groups
        return torch.mkldnn_convolution(input, weight, bias, *geometry)


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
        projected = batch_invariant_linear(query, self.in_proj_weight, self.in_proj_bias)  # b n 3c
        q, k, v = rearrange(projected, "b n (three h c) -> three b h n c", three=3, h=self.num_heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        joined = rearrange(out, "b h n c -> b n (h c)")
        return batch_invariant_linear(joined, self.out_proj.weight, self.out_proj.bias), None


def needs_invariance(x: Tensor) -> bool:
    """Whether images of tensors like `x` are promised not to depend on the batch: in float32, on a CPU."""
    return x.dtype == torch.float32 and x.device.type == "cpu"


def has_onednn() -> bool:
    """Whether this torch has oneDNN, and it is not switched off."""
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def keep_whole_blocks(kept: Tensor) -> Tensor:
    """The tokens to keep, `n` bool, extended so that the first run of them is a multiple of KEY_BLOCK, or all."""
    gaps = (~kept).nonzero()
    if not len(gaps):
        return kept
    first = int(gaps[0])
    extended = kept.clone()
    extended[first : -(-first // KEY_BLOCK) * KEY_BLOCK] = True
    return extended
