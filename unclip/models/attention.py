"""Attention layers of the decoder's U-Net, whose text is equal at every denoising step."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import (
    Attention,
    AttnAddedKVProcessor,
    AttnAddedKVProcessor2_0,
    AttnProcessor2_0,
)
from einops import rearrange
from torch import Tensor, nn

from unclip.models.cpu.attention import attend
from unclip.models.last_result import LastResult

PROCESSORS = (AttnAddedKVProcessor, AttnAddedKVProcessor2_0)


def use_text_attention(unet: nn.Module) -> nn.Module:
    """Give every attention layer in `unet` a processor that projects a text once; returns `unet`.

    That is a `TextAttention` for a layer with added keys and values, and a `CrossAttention` for one of a transformer.
    """
    for module in unet.modules():
        if not isinstance(module, Attention) or module.norm_cross:
            continue
        if isinstance(module.processor, PROCESSORS):
            module.set_processor(TextAttention())  # pyright: ignore[reportArgumentType]
        elif isinstance(module.processor, AttnProcessor2_0) and _is_plain(module):
            module.set_processor(CrossAttention())  # pyright: ignore[reportArgumentType]
    return unet


def _is_plain(attn: Attention) -> bool:
    """Whether a layer has no norms, and adds no residual."""
    norms = attn.spatial_norm, attn.group_norm, attn.norm_q, attn.norm_k
    return not any(norms) and not attn.residual_connection and attn.rescale_output_factor == 1


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
        out = attend(_heads(attn.to_q(pixels), attn), keys, values, bias)
        out = attn.to_out[1](attn.to_out[0](rearrange(out, "b h n c -> b n (h c)")))
        return hidden_states + rearrange(out, "b (h w) c -> b c h w", h=hidden_states.shape[2])


class CrossAttention:
    """Computes the same as diffusers' processor for layers of a transformer, but projects a text once."""

    def __init__(self) -> None:
        self._projected = LastResult()

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Tokens `b q c` that attend to the text's `b n e`, or to each other if it is None -> `b q c`."""
        if attention_mask is not None:
            return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask)
        if encoder_hidden_states is None:
            keys, values = _project(attn, hidden_states)
        else:
            keys, values = self._projected.of(partial(_project, attn), encoder_hidden_states)
        out = attend(_heads(attn.to_q(hidden_states), attn), keys, values)
        return attn.to_out[1](attn.to_out[0](rearrange(out, "b h n c -> b n (h c)")))


def _project(attn: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values `b h n c` of tokens `b n e`."""
    return _heads(attn.to_k(tokens), attn), _heads(attn.to_v(tokens), attn)


def _project_text(attn: Any, text: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values `b h n c` of text tokens `b n e`."""
    return _heads(attn.add_k_proj(text), attn), _heads(attn.add_v_proj(text), attn)


def _heads(x: Tensor, attn: Any) -> Tensor:
    """Split channels into heads."""
    return rearrange(x, "b n (h c) -> b h n c", h=attn.heads)
