"""The upsampler as a training task."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.denoiser import denoiser
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.samplers import Sampling, sample
from unclip.diffusion.schedule import Schedule, add_noise
from unclip.diffusion.wrappers import clamp_x0, map_x0, observe_x0
from unclip.errors import RecipeError
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs
from unclip.models.upsampler import Upsampler, enlarge
from unclip.training.batch import Batch
from unclip.training.losses import sample_noise, velocity_loss
from unclip.training.recipe import StageRecipe
from unclip.training.recipe_tables import Sampling as SamplingTable
from unclip.training.samples import contact_sheet
from unclip.training.tasks.base import Examples, Loss, build_network, check_multiple, coarsest_cell
from unclip.training.tasks.degradation import degrade, downsample
from unclip.training.tasks.options import UpsamplerOptions
from unclip.training.tasks.redrawing import NOISE_LEVELS, Redrawing


class UpsamplerTask:
    """The upsampler's objective: the error on random crops, conditioned on the degraded small image.

    It is the velocity's at random noise levels or, in `unrolled` batches, that of x0 in the finished model's own steps.

    redrawing: the decoder that the option `redrawn` needs, set before the training.
    """

    redrawing: Redrawing | None = None

    def __init__(self, recipe: StageRecipe, examples: Examples):
        assert isinstance(recipe.sampling, SamplingTable) and isinstance(recipe.task, UpsamplerOptions)
        self.options = recipe.task
        self.sampling = recipe.sampling
        self.examples = examples
        self.codec = PixelUnshuffle(self.options.patch)
        self.size = self.options.size
        self.predicts = self.options.prediction
        where = f"{recipe.source} [upsampler.task]"
        check_multiple(where, "size", self.size, self.options.patch)
        self.shape = self.codec.latent_shape(self.size, self.size)
        computed = {
            "sample_size": self.shape[1],
            "in_channels": 2 * self.shape[0],
            "out_channels": self.shape[0],
        }
        unet = build_network("UNet2DModel", recipe.model, computed, f"{recipe.source} [upsampler.model]")
        self._check_sizes(unet, where)
        difference = self.predicts == "difference"
        if difference:  # start with the enlarged image itself as the output
            nn.init.zeros_(unet.conv_out.weight)
            nn.init.zeros_(unet.conv_out.bias)
        self.network = Upsampler(unet, difference)
        self.schedule = Schedule(prediction_type="sample" if difference else self.predicts, clip=1.0)

    def fit_to_data(self) -> None:
        """Nothing: the initial weights do not depend on the images."""

    def _check_sizes(self, unet: nn.Module, where: str) -> None:
        size, small, crop = self.options.size, self.options.small, self.options.crop
        check_multiple(where, "size", size, small)
        cell = coarsest_cell(self.options.patch, unet)
        for key, value in (("size", size), ("crop", crop)):
            check_multiple(where, key, value, math.lcm(cell, size // small))
        if crop > size:
            raise RecipeError(f"{where}: crop = {crop} is larger than size = {size}")

    def downsample(self, images: Tensor) -> Tensor:
        """Images `b 3 H W` -> the small images that the decoder would generate."""
        return downsample(images, images.shape[-1] * self.options.small // self.size)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The error on a random crop; captions and layouts are for the decoder that redraws small images."""
        ratio, crop = self.size // self.options.small, self.options.crop
        places = (batch.images.shape[-1] - crop) // ratio + 1  # one if the data are crops
        offset = batch.once(lambda generator: torch.randint(0, places, (2,), generator=generator))
        top, left = (offset * ratio).tolist()
        images = batch.images[..., top : top + crop, left : left + crop]
        small = degrade(self.downsample(images), batch, self.options.blur, self.options.noise)
        if self.options.redrawn:
            rows, redrawn = self.redraw(batch)
            y, x, side = top // ratio, left // ratio, crop // ratio
            small = small.index_copy(0, rows, redrawn[..., y : y + side, x : x + side].to(small))
        x0 = self.codec.encode(images)
        enlarged = self.codec.encode(enlarge(small, (crop, crop)))
        if float(batch.once(lambda generator: torch.rand((), generator=generator))) < self.options.unrolled:
            return self.unrolled_loss(network, x0, enlarged, batch.randint(0, 2**62).tolist()), {}
        t, noise = sample_noise(x0, self.schedule, batch, self.options.noise_shift)
        x_t = add_noise(x0, noise, t, self.schedule)
        return velocity_loss(network(x_t, t, enlarged), x_t, x0, t, self.schedule), {}

    def unrolled_loss(self, network: nn.Module, x0: Tensor, enlarged: Tensor, seeds: Sequence[int]) -> Tensor:
        """The mean absolute error of x0 `b c h w` over the steps in which the finished model samples it.

        In two or three steps a sampler visits no noise level but its own, with images of its own at the later ones. An
        error that is not squared leaves an uncertain edge sharp in the likeliest place. Each step learns from its own
        error alone. seeds: of the noise, `b`.
        """
        errors: list[Tensor] = []
        denoise = denoiser(lambda x, t: network(x, t, enlarged), self.schedule)
        denoise = observe_x0(denoise, lambda found: errors.append((found - x0).abs().mean()))
        denoise = map_x0(clamp_x0(denoise, self.schedule.clip), Tensor.detach)
        generators = make_generators(seeds)
        noise = randn(tuple(x0.shape[1:]), generators, x0.device)
        sample(denoise, noise, self.schedule, Sampling(self.sampling.sampler, self.sampling.steps), generators)
        return torch.stack(errors).mean()

    def redraw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rows `k` of the images that the decoder draws anew, and these small images `k 3 s s`."""
        assert self.redrawing is not None, "the decoder is missing"
        chosen, seeds = batch.rand() < self.options.redrawn, batch.randint(0, 2**62)
        low, high = NOISE_LEVELS
        level = low + (high - low) * float(batch.once(lambda generator: torch.rand((), generator=generator)))
        kept = chosen.nonzero()[:, 0]
        rows = kept.to(batch.images.device)
        small = self.downsample(batch.images[rows])
        if len(rows) == 0:
            return rows, small
        layouts = None if batch.layouts is None else batch.layouts.to(small.device)[rows]
        captions = [batch.captions[i] for i in kept.tolist()]
        return rows, self.redrawing(small, captions, layouts, level, seeds[kept].tolist())

    def stage(self) -> Stage:
        """The stage as the finished model samples it. It has no text, hence no guidance."""
        return Stage(
            name="upsampler",
            network=self.network,
            schedule=self.schedule,
            shape=self.shape,
            codec=self.codec,
            sampler=self.sampling.sampler,
            steps=self.sampling.steps,
        )

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Three rows of four: enlarged small images, upsampled images, originals."""
        images = self.examples(self.size, 4)[0]
        side = images.shape[-1]  # of crops, less than the size
        enlarged = enlarge(self.downsample(images), (side, side))
        inputs = StageInputs({"enlarged": self.codec.encode(enlarged)})
        stage = replace(self.stage(), shape=self.codec.latent_shape(side, side))
        upsampled = stage.run(inputs, make_generators(range(4)))
        return contact_sheet(torch.cat([enlarged, upsampled, images]), 4)

    def networks(self) -> dict[str, nn.Module]:
        """The component "upsampler"."""
        return {"upsampler": self.network.unet}

    def stage_config(self) -> dict[str, Any]:
        """The sampling defaults, the size, the codec, and whether the network predicts a difference."""
        sizes = {"size": [self.size] * 2, "codec": self.codec.to_config()}
        return {**self.sampling.model_dump(), **sizes, "difference": self.network.difference}
