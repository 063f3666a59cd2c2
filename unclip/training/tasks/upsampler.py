"""What the upsampler trains: its network, its loss over an enlarged and spoiled small picture, and samples."""

import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.errors import RecipeError
from unclip.inference.stage import Stage
from unclip.models.upsampler import Upsampler, enlarge
from unclip.training.losses import draw_noise, velocity_error
from unclip.training.recipe import StageRecipe, build
from unclip.training.samples import to_picture
from unclip.training.tasks.base import Examples, Loss, check_multiple, coarsest, new_part
from unclip.training.tasks.options import UpsamplerOptions


class UpsamplerTask:
    """The upsampler's objective: the error of the velocity, from the spoiled small picture, on random crops."""

    def __init__(self, recipe: StageRecipe, examples: Examples):
        where = f"{recipe.source} [upsampler.task]"
        self.options = build(UpsamplerOptions, recipe.task, where)
        self.sampling = recipe.sampling
        self.codec = PixelUnshuffle(self.options.patch)
        self.size = self.output_size = self.options.size
        check_multiple(where, "size", self.size, self.options.patch)
        self.shape = self.codec.latent_shape(self.size, self.size)
        sizes = {
            "sample_size": self.shape[1],
            "in_channels": 2 * self.shape[0],
            "out_channels": self.shape[0],
        }
        unet = new_part("UNet2DModel", recipe.model, sizes, f"{recipe.source} [upsampler.model]")
        check_multiple(where, "size", self.size, self.options.small)
        side = coarsest(self.options.patch, unet)
        for key, value in (("size", self.size), ("crop", self.options.crop)):
            check_multiple(where, key, value, math.lcm(side, self.size // self.options.small))
        if self.options.crop > self.size:
            raise RecipeError(f"{where}: crop = {self.options.crop} is larger than size = {self.size}")
        self.predicts = self.options.prediction
        difference = self.predicts == "difference"
        if difference:  # begin with the enlarged picture as it is
            nn.init.zeros_(unet.conv_out.weight)
            nn.init.zeros_(unet.conv_out.bias)
        self.network = Upsampler(unet, difference)
        self.schedule = Schedule(prediction_type="sample" if difference else self.predicts, clip=1.0)
        self.examples = examples

    def shrink(self, images: Tensor) -> Tensor:
        """Pictures `b 3 H W` -> the small ones that the decoder would draw."""
        side = images.shape[-1] * self.options.small // self.size
        return F.interpolate(images, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)

    def loss(self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator) -> Loss:
        ratio, crop = self.size // self.options.small, self.options.crop
        top, left = (torch.randint(0, (self.size - crop) // ratio + 1, (2,), generator=generator) * ratio).tolist()
        images = images[..., top : top + crop, left : left + crop]
        small = self.spoil(self.shrink(images), generator)
        x0 = self.codec.encode(images)
        t, noise = draw_noise(x0, self.schedule, generator, self.options.noise_shift)
        enlarged = self.codec.encode(enlarge(small, (crop, crop)))
        x_t = add_noise(x0, noise, t, self.schedule)
        return velocity_error(network(x_t, t, enlarged), x_t, x0, t, self.schedule), {}

    def spoil(self, small: Tensor, generator: torch.Generator) -> Tensor:
        """Blur and noise of random strength, an image each: `b 3 h w`."""
        blur, noise = torch.rand(2, len(small), 1, 1, 1, generator=generator).to(small.device)
        sigma = (blur * self.options.blur).clamp(min=1e-3)
        offsets = torch.arange(-2, 3, device=small.device)
        row = torch.exp(-(offsets**2) / (2 * sigma.flatten()[:, None] ** 2))  # b 5
        row = row / row.sum(1, keepdim=True)
        kernel = (row[:, :, None] * row[:, None, :]).repeat_interleave(3, 0)[:, None]  # b*3 1 5 5
        padded = F.pad(small, (2, 2, 2, 2), mode="replicate").flatten(0, 1)[None]  # 1 b*3 h w
        blurred = F.conv2d(padded, kernel, groups=len(kernel))[0].unflatten(0, small.shape[:2])
        grain = torch.randn(small.shape, generator=generator).to(small.device)
        return blurred + noise * self.options.noise * grain

    def stage(self) -> Stage:
        sampler, steps = self.sampling.sampler, self.sampling.steps  # it has no text to be guided by
        return Stage("upsampler", self.network, self.schedule, self.shape, self.codec, sampler, steps)

    @torch.no_grad()
    def grid(self) -> Image.Image:
        images = self.examples(self.size, 4)[0]
        enlarged = enlarge(self.shrink(images), (self.size, self.size))
        drawn = self.stage().run({"enlarged": self.codec.encode(enlarged)}, None, make_generators(range(4)))
        return to_picture(torch.cat([enlarged, drawn, images]), 4)

    def networks(self) -> dict[str, nn.Module]:
        return {"upsampler": self.network.unet}
