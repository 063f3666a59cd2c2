"""The second upsampler as a training task: it restores images of the first one, at a multiple of their size."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.component_loader import ComponentLoader
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.layouts.native import load_upsampler
from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.noise import make_generators
from unclip.diffusion.schedule import Schedule
from unclip.errors import RecipeError
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.restorer import FeedForwardUpsampler, ResidualBlock, Restorer
from unclip.models.upsampler import enlarge
from unclip.system.files import read_json
from unclip.training.batch import Batch
from unclip.training.recipe import StageRecipe
from unclip.training.samples import contact_sheet
from unclip.training.tasks.base import Examples, Loss, build_network, check_multiple
from unclip.training.tasks.degradation import degrade, displace_patches, downsample
from unclip.training.tasks.options import SecondUpsamplerOptions

CONTRAST_GAIN = 10.0
BLOCK_GAIN = 0.3


class SecondUpsamplerTask:
    """The second upsampler's objective: the absolute error of the large image, given the degraded small one.

    The error is not squared, so that an uncertain edge is sharp in the likeliest place and not blurred over all places.

    upsampler: the first upsampler, frozen, which the option `upsampled` needs, set before the training.
    """

    upsampler: Stage | None = None

    def __init__(self, recipe: StageRecipe, examples: Examples):
        assert isinstance(recipe.task, SecondUpsamplerOptions)
        self.options = options = recipe.task
        self.examples = examples
        self.size = options.size
        self.predicts = "sample"
        where = f"{recipe.source} [second_upsampler.task]"
        check_multiple(where, "size", options.size, options.small)
        check_multiple(where, "small", options.small, options.smallest)
        self.codec = PixelUnshuffle(options.size // options.small)
        check_multiple(where, "small", options.small, 2)  # the network halves it
        for key, value in (("size", options.size), ("crop", options.crop)):
            check_multiple(where, key, value, max(2 * self.codec.factor, options.size // options.smallest))
        if options.crop > options.size:
            raise RecipeError(f"{where}: crop = {options.crop} is larger than size = {options.size}")
        self.shape = self.codec.latent_shape(self.size, self.size)
        computed = {"channels": self.shape[0]}
        restorer = build_network("Restorer", recipe.model, computed, f"{recipe.source} [second_upsampler.model]")
        initialize(restorer, self.codec.factor)
        self.network = FeedForwardUpsampler(restorer)
        self.schedule = Schedule(prediction_type="sample", clip=1.0)

    def fit_to_data(self) -> None:
        """Nothing: the initial weights do not depend on the images."""

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The mean absolute error of random crops."""
        images = self.crop(batch)  # b 3 c c
        small = self.make_small(images, batch)
        enlarged = self.codec.encode(enlarge(small, (self.options.crop, self.options.crop)))
        t = torch.full((len(images),), self.schedule.num_train_timesteps - 1, device=images.device)
        x0 = network(enlarged, t, enlarged)  # b c h w; the first input is not used
        return (x0.float() - self.codec.encode(images)).abs().mean(), {}

    def crop(self, batch: Batch) -> Tensor:
        """Random crops `b 3 c c` of the images; their corners lie on pixels of the smallest images."""
        crop, step = self.options.crop, self.size // self.options.smallest
        places = (batch.images.shape[-1] - crop) // step + 1  # one if the data are crops
        offset = batch.once(lambda generator: torch.randint(0, places, (2,), generator=generator))
        top, left = (offset * step).tolist()
        return batch.images[..., top : top + crop, left : left + crop]

    @torch.no_grad()
    def make_small(self, images: Tensor, batch: Batch) -> Tensor:
        """Small images `b 3 s s` of crops: true ones, or what the first upsampler makes of a decoder's; degraded."""
        options = self.options
        ratio = self.size // options.small
        small = downsample(images, options.crop // ratio)
        if options.upsampled:
            chosen, seeds = batch.rand() < options.upsampled, batch.randint(0, 2**62)
            kept = chosen.nonzero()[:, 0]
            smallest = downsample(images, options.crop * options.smallest // self.size)
            smallest = displace_patches(smallest, batch, options.patch, options.shift, options.tint)
            smallest = degrade(smallest, batch, options.blur, options.grain)
            rows = kept.to(images.device)
            small = small.index_copy(0, rows, self.upsample(smallest[rows], seeds[kept].tolist()).to(small))
        return degrade(small, batch, options.blur, options.noise)

    def upsample(self, images: Tensor, seeds: list[int]) -> Tensor:
        """What the first upsampler makes of crops `b 3 s s` of the decoder's images."""
        assert self.upsampler is not None, "the first upsampler is missing"
        side = images.shape[-1] * self.options.small // self.options.smallest
        if len(images) == 0:
            return images.new_empty(0, 3, side, side)
        stage = self.upsampler
        with torch.autocast(images.device.type, enabled=False):
            inputs = StageInputs({"enlarged": stage.codec.encode(enlarge(images.float(), (side, side)))})
            return stage.run(inputs, make_generators(seeds), StageOptions(size=(side, side))).clone()  # for gradients

    def stage(self) -> Stage:
        """The stage as the finished model samples it."""
        return Stage(
            "second upsampler",
            self.network,
            self.schedule,
            self.shape,
            codec=self.codec,
            sampler="ddim",
            steps=1,
            any_size=True,  # for grids of crops
            feed_forward=True,
        )

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Three rows of four: enlarged small images, upsampled images, originals."""
        options = self.options
        images = self.examples(self.size, 4)[0]
        side = images.shape[-1]  # of crops, less than the size
        seeds = range(len(images))
        if options.upsampled:
            small = self.upsample(downsample(images, side * options.smallest // self.size), list(seeds))
        else:
            small = downsample(images, side * options.small // self.size)
        enlarged = enlarge(small, (side, side))
        inputs = StageInputs({"enlarged": self.codec.encode(enlarged)})
        upsampled = self.stage().run(inputs, make_generators(seeds), StageOptions(size=(side, side)))
        return contact_sheet(torch.cat([enlarged, upsampled, images]), 4)

    def networks(self) -> dict[str, nn.Module]:
        """The component "second_upsampler"."""
        return {"second_upsampler": self.network.restorer}

    def stage_config(self) -> dict[str, Any]:
        """One step, the size and the codec."""
        return {
            "sampler": "ddim",
            "steps": 1,
            "guidance": 1.0,
            "size": [self.size] * 2,
            "codec": self.codec.to_config(),
        }


@torch.no_grad()
def initialize(restorer: Restorer, factor: int) -> None:
    """Set the initial weights: the output is 0, so that the enlarged image stays as it is. factor: of the codec.

    The first convolution reads the contrast within its reach more strongly than the mean colour, which says nothing of
    edges but varies ten times as much. Blocks start small, as nothing normalizes their sum.
    """
    for parameter in restorer.conv_out.parameters():
        nn.init.zeros_(parameter)
    weight = restorer.conv_in.weight.unflatten(1, (-1, factor**2))  # d colours positions y x
    mean = weight.mean((2, 3, 4), keepdim=True)
    restorer.conv_in.weight.copy_((mean + CONTRAST_GAIN * (weight - mean)).flatten(1, 2))
    for resize in (restorer.down, restorer.up):
        nn.init.kaiming_normal_(resize.weight, nonlinearity="linear")
    for block in (each for each in restorer.modules() if isinstance(each, ResidualBlock)):
        nn.init.kaiming_normal_(block.conv1.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(block.conv2.weight)
        block.conv2.weight.mul_(BLOCK_GAIN)


def load_first_upsampler(model: Path, device: torch.device) -> Stage:
    """The first upsampler of a checkpoint folder that training wrote, for crops of any size.

    Raises CheckpointError if it is missing or damaged.
    """
    stage = load_upsampler(ComponentLoader(model, device, torch.float32), read_json(model / INDEX))
    return replace(stage, any_size=True)
