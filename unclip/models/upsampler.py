"""The upsampler: a U-Net that draws a large picture around a small one.

Ramesh et al. 2022 (arXiv:2204.06125), section 2.1: the small picture, resized, is concatenated to the noised large one;
no text and no guidance.
"""

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from unclip.models.cpu.resnet import in_place


def enlarge(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`b 3 h w` -> `b 3 H W` for size (W, H): clamped to [-1, 1], then bicubic with antialiasing."""
    return F.interpolate(images.clamp(-1, 1), size=(size[1], size[0]), mode="bicubic", antialias=True)


class Upsampler(nn.Module):
    """The U-Net, with its second input joined to the first. Convolutions only, so that it takes any size.

    difference: what the U-Net says is x0 less the enlarged picture. Where there is nothing to add, as on a flat
    background, it then says nothing, and need not carry every pixel of the picture through its channels. No schedule
    knows of it, for none knows the enlarged picture: to the schedule, what comes out is x0 ("sample").
    """

    exact = ("enlarged",)
    """Conditioning that is to keep its own precision: a sum in bfloat16 rounds a pixel to half a level of 255."""

    def __init__(self, unet: UNet2DModel, difference: bool = False):
        super().__init__()
        self.unet, self.difference = in_place(unet), difference

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level, which is as large as the latent."""
        return self.unet.config.block_out_channels[0]

    def forward(self, x: Tensor, t: Tensor, enlarged: Tensor) -> Tensor:
        """Noised latent `b c h w` at timesteps `b`, and the enlarged small picture `b c h w` -> what it predicts."""
        output = self.unet(torch.cat([x, enlarged.to(x.dtype)], dim=1), t).sample
        return enlarged + output if self.difference else output
