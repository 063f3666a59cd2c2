"""Residual blocks for sampling: the same computation as diffusers' block, in fewer passes over memory."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import SpatialNorm
from diffusers.models.resnet import ResnetBlock2D, ResnetBlockCondNorm2D
from torch import Tensor, nn

from unclip.models.cpu.onednn import conv_add


def use_in_place_blocks(network: nn.Module) -> nn.Module:
    """Let every residual block in `network` work in place when no gradient is needed; returns `network`."""
    for module in network.modules():
        if type(module) is ResnetBlock2D and isinstance(module.nonlinearity, nn.SiLU):
            module.__class__ = InPlaceResnetBlock
        elif type(module) is ResnetBlockCondNorm2D and _is_spatial(module):
            module.__class__ = InPlaceSpatialBlock
        elif type(module) is SpatialNorm:
            module.__class__ = InPlaceSpatialNorm
    return network


def _is_spatial(block: ResnetBlockCondNorm2D) -> bool:
    """Whether a block is one of MoVQ's."""
    resizes = block.upsample is not None or block.downsample is not None
    return block.time_embedding_norm == "spatial" and isinstance(block.nonlinearity, nn.SiLU) and not resizes


class InPlaceResnetBlock(ResnetBlock2D):
    """A `ResnetBlock2D` without copies.

    At 256 x 256 pixels, diffusers spends a third of its time on new memory for each activation, sum and division by 1.
    Their inputs are used nowhere else, so this block overwrites them, or adds within the convolution.
    """

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: Any, **kwargs: Any) -> Tensor:
        """Features `b c h w` and time embedding `b t` -> `b d h w`; a block that resizes halves or doubles h and w."""
        if self.training or torch.is_grad_enabled():
            return super().forward(input_tensor, temb, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        x, skip = _silu(self.norm1(input_tensor)), input_tensor
        resize = self.upsample or self.downsample
        if resize is not None:
            x, skip = resize(x), resize(skip)
        time = None
        if self.time_emb_proj is not None:
            assert temb is not None, "this block needs a time embedding"
            time = self.time_emb_proj(temb if self.skip_time_act else F.silu(temb))[:, :, None, None]  # b d 1 1
        if time is not None and self.time_embedding_norm == "scale_shift":
            scale, shift = time.chunk(2, dim=1)
            x = self.conv1(x)
            x = self.norm2(x)  # not nested: that would keep the input of the convolution alive
            x = torch.addcmul(shift, x, 1 + scale, out=x)
        else:
            x = self.conv1(x) if time is None else conv_add(self.conv1, x, time)
            x = self.norm2(x)
        x = conv_add(self.conv2, _silu(x), skip if self.conv_shortcut is None else self.conv_shortcut(skip))
        return x if self.output_scale_factor == 1 else x.div_(self.output_scale_factor)


class InPlaceSpatialBlock(ResnetBlockCondNorm2D):
    """MoVQ's `ResnetBlockCondNorm2D` without copies: half the memory of a decoded image."""

    def forward(self, input_tensor: Tensor, temb: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Features `b c H W` and the latent `b z h w`, which modulates the norms -> `b d H W`."""
        if self.training or torch.is_grad_enabled():
            return super().forward(input_tensor, temb, *args, **kwargs)
        x = self.norm1(input_tensor, temb)
        x = self.conv1(_silu(x))
        x = self.norm2(x, temb)
        skip = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        x = conv_add(self.conv2, _silu(x), skip)
        return x if self.output_scale_factor == 1 else x.div_(self.output_scale_factor)


class InPlaceSpatialNorm(SpatialNorm):
    """A `SpatialNorm` that convolves the latent at its own size, up to 64 times smaller than the features.

    A convolution of single positions commutes with nearest resizing.
    """

    def forward(self, f: Tensor, zq: Tensor) -> Tensor:
        """Features `b c H W` and the latent `b z h w` -> modulated features `b c H W`."""
        (height, width), (rows, columns) = f.shape[-2:], zq.shape[-2:]
        if torch.is_grad_enabled() or height % rows or width % columns:
            return super().forward(f, zq)
        x = self.norm_layer(f)
        cells = x.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # b c h p w q, a view
        for conv, operation in ((self.conv_y, cells.mul_), (self.conv_b, cells.add_)):
            operation(conv(zq)[:, :, :, None, :, None])
        return x


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)
