"""Attention for CPUs that compute in bfloat16 without matrix units, and for training on a CPU."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1 << 22
"""Scores that are computed at a time: 8 MB, so that they stay in a cache."""


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention: `b h q c`, `b h n c` twice, `b 1 1 n` -> `b h q c`."""
    if queries.device.type == "cpu" and torch.compiler.is_compiling():
        # With so few pixels, the CPU kernel's backward pass is slow: written out, training is 4 to 16% faster.
        return _attend_in_float32(queries, keys, values, bias)
    samples = queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and not torch.is_grad_enabled()
    if samples and _multiplies_bfloat16_by_vectors():
        return attend_in_blocks(queries, keys, values, bias)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)


def attend_in_blocks(
    queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None, block: int = BLOCK
) -> Tensor:
    """The same as `attend`, with all scores of a block of queries computed at once, in the precision of the inputs.

    torch's kernel for the CPU converts bfloat16 to float32, unless the CPU has matrix units. These are products in
    bfloat16: about twice as fast. block: of how many scores.
    """
    b, h, count, channels = queries.shape
    keys, values = keys.flatten(0, 1).mT, values.flatten(0, 1)  # (b h) c n, (b h) n c
    rows = max(1, block // (b * h * keys.shape[2]))
    out = torch.empty_like(queries, memory_format=torch.preserve_format)
    for first in range(0, count, rows):
        part = slice(first, first + rows)
        own = queries[:, :, part].flatten(0, 1)  # (b h) q c
        scores = torch.baddbmm(own.new_empty(1, 1, 1), own, keys, beta=0, alpha=channels**-0.5)  # (b h) q n
        if bias is not None:
            scores.view(b, h, *scores.shape[1:]).add_(bias)
        out[:, :, part] = torch.bmm(scores.softmax(-1), values).unflatten(0, (b, h))
    return out


def _attend_in_float32(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Attention written out, with its weights in float32."""
    similarities = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    if bias is not None:
        similarities = similarities + bias
    return similarities.float().softmax(-1).to(values.dtype) @ values


@cache
def _multiplies_bfloat16_by_vectors() -> bool:
    """Whether the CPU has vector instructions for bfloat16 (AVX-512), and no matrix units (AMX)."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has none
    return bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16")
