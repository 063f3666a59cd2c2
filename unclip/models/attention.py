"""Attention of the decoder's U-Net over the pixels of a level and the text tokens together."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention, AttnAddedKVProcessor, AttnAddedKVProcessor2_0
from einops import rearrange
from torch import Tensor, nn

from unclip.models.last_result import LastResult

PROCESSORS = (AttnAddedKVProcessor, AttnAddedKVProcessor2_0)


def use_text_attention(unet: nn.Module) -> nn.Module:
    """Give every attention layer with added keys and values in `unet` its own `TextAttention`; returns `unet`."""
    for module in unet.modules():
        if isinstance(module, Attention) and isinstance(module.processor, PROCESSORS) and not module.norm_cross:
            module.set_processor(TextAttention())  # pyright: ignore[reportArgumentType]
    return unet


class TextAttention:
    """Computes the same as diffusers' processor for added keys and values, with two differences.

    The text's keys and values are equal at every denoising step, so they are projected once and reused until another
    text arrives. And a level with as many pixels as tokens works: there, diffusers takes the token mask for a mask of
    all keys, and fails.
    """

    def __init__(self) -> None:
        self._projected = LastResult()

    def __call__(
        self,
        attn: Any,  # diffusers' Attention; its type allows None for layers that this kind always has
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Features `b c h w`, text tokens `b n e`, and a bias of the tokens `b 1 n` (-10,000 = masked) -> `b c h w`."""
        # In channels_last, which the U-Nets use, this is a view.
        pixels = rearrange(attn.group_norm(hidden_states), "b c h w -> b (h w) c")
        keys, values = self._projected.of(partial(_project_text, attn), encoder_hidden_states)
        if not attn.only_cross_attention:
            if attention_mask is not None:
                attention_mask = F.pad(attention_mask, (pixels.shape[1], 0))  # no pixel is masked
            keys = torch.cat([_heads(attn.to_k(pixels), attn), keys], dim=2)
            values = torch.cat([_heads(attn.to_v(pixels), attn), values], dim=2)
        bias = None if attention_mask is None else attention_mask[:, None].to(pixels.dtype)  # b 1 1 keys
        out = _attend(_heads(attn.to_q(pixels), attn), keys, values, bias)
        out = attn.to_out[1](attn.to_out[0](rearrange(out, "b h n c -> b n (h c)")))
        return hidden_states + rearrange(out, "b (h w) c -> b c h w", h=hidden_states.shape[2])


def _project_text(attn: Any, text: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values `b h n c` of text tokens `b n e`."""
    return _heads(attn.add_k_proj(text), attn), _heads(attn.add_v_proj(text), attn)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled dot-product attention: `b h q c`, `b h n c` twice, `b 1 1 n` -> `b h q c`."""
    if queries.device.type != "cpu" or not torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
    # With so few pixels, the CPU kernel's backward pass is slow: written out, training is 4 to 16% faster.
    similarities = (queries * queries.shape[-1] ** -0.5) @ keys.mT
    if bias is not None:
        similarities = similarities + bias
    return similarities.float().softmax(-1).to(values.dtype) @ values


def _heads(x: Tensor, attn: Any) -> Tensor:
    """Split channels into heads."""
    return rearrange(x, "b n (h c) -> b h n c", h=attn.heads)
