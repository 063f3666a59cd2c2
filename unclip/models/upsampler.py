"""The diffusion upsampler: a U-Net that samples a large image given a small one.

Ramesh et al. 2022 (arXiv:2204.06125), section 2.1: the resized small image is concatenated to the noised large one;
there is no text and no guidance.
"""

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from unclip.models.config import diffusers_config
from unclip.models.cpu.batch_invariance import use_batch_invariant_layers
from unclip.models.cpu.resnet import use_in_place_blocks


def enlarge(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `b 3 h w` -> `b 3 H W` for size (W, H): clamped to [-1, 1], then bicubic with antialiasing."""
    return F.interpolate(images.clamp(-1, 1), size=(size[1], size[0]), mode="bicubic", antialias=True)


class Upsampler(nn.Module):
    """A convolutional U-Net that takes the noised image and the enlarged small image. It works at any size.

    difference: the U-Net predicts x0 minus the enlarged image. On a flat background it then predicts 0 and need not
    carry every pixel through its channels. The sum is taken here, so the schedule sees a network that predicts x0
    ("sample").
    """

    exact = ("enlarged",)
    """Conditioning that keeps its own precision: a sum in bfloat16 rounds a pixel to half a level of 255."""

    def __init__(self, unet: UNet2DModel, difference: bool = False):
        super().__init__()
        self.unet = use_batch_invariant_layers(use_in_place_blocks(unet))
        self.difference = difference

    @property
    def width(self) -> int:
        """Channels of the U-Net's first level, which has the latent's height and width."""
        return diffusers_config(self.unet).block_out_channels[0]

    def forward(self, x: Tensor, t: Tensor, enlarged: Tensor) -> Tensor:
        """Noised latent `b c h w` at timesteps `b`, and the enlarged image `b c h w` -> the raw prediction."""
        output = self.unet(torch.cat([x, enlarged.to(x.dtype)], dim=1), t).sample  # b 2c h w -> b c h w, or b 2c h w
        return enlarged + output if self.difference else output
