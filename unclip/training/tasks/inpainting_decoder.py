"""The inpainting decoder as a training task: a copy of the trained decoder, fine-tuned on images with known parts.

GLIDE (Nichol et al. 2021, arXiv:2112.10741, section 2.4) fine-tunes its generator for inpainting, and Kandinsky ships
such a copy as a second decoder: the generator spends none of its training on masks.
"""

from collections.abc import Collection

import torch
from PIL import Image
from torch import nn

from unclip.checkpoints.decoder_copy import NAME
from unclip.diffusion.noise import make_generators
from unclip.errors import RecipeError, did_you_mean
from unclip.inference.conditions import Known
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs
from unclip.models.decoder import Decoder
from unclip.training.augmentation import random_known_masks
from unclip.training.recipe import StageRecipe
from unclip.training.recipe_tables import Sampling
from unclip.training.samples import contact_sheet
from unclip.training.tasks.base import Examples
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.frozen_clip import FrozenClip
from unclip.training.tasks.options import InpaintingDecoderOptions


class InpaintingDecoderTask(DecoderTask):
    """The decoder's objective for a part of the weights of a trained decoder; the others stay as they are."""

    def __init__(self, recipe: StageRecipe, clip: FrozenClip, examples: Examples, decoder: Stage):
        """decoder: the trained one; its network is changed. Raises RecipeError if it cannot be trained with masks."""
        assert isinstance(recipe.sampling, Sampling) and isinstance(recipe.task, InpaintingDecoderOptions)
        where = f"{recipe.source} [{NAME}.task]"
        self.options = recipe.task
        self.sampling = recipe.sampling
        self.examples = examples
        self.clip = clip
        self.codec = decoder.codec
        self.size = decoder.size[0]
        self.shape = decoder.shape
        self.schedule = decoder.schedule
        self.predicts = decoder.schedule.prediction_type
        self.network: Decoder = decoder.network
        if not self.network.has_inpainting_inputs:
            raise RecipeError(f"{where}: the decoder has no inputs for known pixels: train one from a recipe")
        select_trained(self.network, recipe.task.trained, where)
        self.network.to(clip.device)

    def fit_to_data(self) -> None:
        """Nothing: the weights are those of the decoder."""

    def stage_config(self) -> dict[str, object]:
        """The sampling defaults, and `shown_above`. Size and codec are the decoder's."""
        return {**self.sampling.model_dump(), "shown_above": self.options.shown_above}

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Rows of eight, twice: originals, their known parts, and samples that keep these."""
        images, captions = self.examples(self.size)
        generator = torch.Generator().manual_seed(0)
        mask = random_known_masks(len(images), self.size, 1.0, generator).to(images)
        hint = self.codec.encode(images), self.codec.encode_mask(mask)
        embed, text = self.clip.encode_images(images), self.clip.encode_text(captions)
        cond = self.network.condition(embed, text, *hint)
        uncond = self.network.condition(None, self.clip.encode_text([""] * len(images)), *hint)
        generators = make_generators(range(len(images)))
        samples = self.stage().run(StageInputs(cond, uncond), generators, known=Known(images, mask))
        rows = [
            part for half in (slice(8), slice(8, None)) for part in (images[half], (images * mask)[half], samples[half])
        ]
        return contact_sheet(torch.cat(rows), 8)


def select_trained(network: Decoder, trained: Collection[str] | None, where: str) -> None:
    """Let those parameters of a decoder be trained whose names begin with one of `trained`, and no others.

    trained: whole parts of names in the U-Net, such as "up_blocks.1", or in the projection, such as "text_proj"; None
    is all of both. The decoder's text encoder stays as it is. where: for messages. Raises RecipeError for a name that
    no parameter has.
    """
    parts: dict[str, nn.Parameter] = dict(network.unet.named_parameters())
    parts |= {f"text_proj.{name}": parameter for name, parameter in network.projection.named_parameters()}
    network.requires_grad_(False)
    chosen = ("",) if trained is None else trained
    for prefix in chosen:
        found = [parameter for name, parameter in parts.items() if is_below(name, prefix)]
        if not found:
            known = {".".join(name.split(".")[:depth]) for name in parts for depth in (1, 2)}
            fix = did_you_mean(prefix, sorted(known))
            raise RecipeError(f"{where}: trained names {prefix!r}, which is no part of the decoder; {fix}")
        for parameter in found:
            parameter.requires_grad_(True)


def is_below(name: str, prefix: str) -> bool:
    """Whether the name of a parameter begins with the whole parts of `prefix`."""
    return not prefix or name == prefix or name.startswith(f"{prefix}.")
