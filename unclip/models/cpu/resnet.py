"""The residual blocks of the U-Nets, for drawing: what diffusers' block computes, in fewer passes over memory."""

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from unclip.models.cpu.onednn import convolved_plus


def in_place(unet: nn.Module) -> nn.Module:
    """Let every residual block in `unet` work in place where no gradient is wanted; returns `unet`."""
    for module in unet.modules():
        if type(module) is ResnetBlock2D and isinstance(module.nonlinearity, nn.SiLU):
            module.__class__ = InPlaceBlock
    return unet


class InPlaceBlock(ResnetBlock2D):
    """A `ResnetBlock2D` without copies.

    At 256 x 256 a third of diffusers' time goes into new memory for each activation, sum and quotient by 1. Each of
    them is of a tensor that nothing else holds, so here it is computed where that lies, or with the convolution.
    """

    def forward(self, input_tensor: Tensor, temb: Tensor | None, *args: object, **kwargs: object) -> Tensor:
        """`b c h w` and the time embedding `b t` -> `b d h w`, of half or twice the size in a block that resizes."""
        if self.training or torch.is_grad_enabled():
            return super().forward(input_tensor, temb, *args, **kwargs)
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
            x = self.norm2(x)  # not of one line: what went into the convolution would be held meanwhile
            x = torch.addcmul(shift, x, 1 + scale, out=x)
        else:
            x = self.conv1(x) if time is None else convolved_plus(self.conv1, x, time)
            x = self.norm2(x)
        x = convolved_plus(self.conv2, _silu(x), skip if self.conv_shortcut is None else self.conv_shortcut(skip))
        return x if self.output_scale_factor == 1 else x.div_(self.output_scale_factor)


def _silu(x: Tensor) -> Tensor:
    return F.silu(x, inplace=True)
