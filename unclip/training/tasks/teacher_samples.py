"""Clean samples and conditioning for distillation: from a teacher and prompts alone, or from training images."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unclip.diffusion.codecs import Identity
from unclip.diffusion.guidance import NetworkInputs
from unclip.diffusion.noise import Generators, make_generators
from unclip.errors import RecipeError
from unclip.inference.model import UnclipModel
from unclip.inference.priors import DiffusionPrior
from unclip.inference.run_context import Run, SamplingOptions
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.text import TextEncoding
from unclip.models.upsampler import enlarge
from unclip.training.augmentation import random_known_masks
from unclip.training.batch import Batch
from unclip.training.tasks.frozen_clip import FrozenEncoder, drop_captions
from unclip.training.tasks.options import DistillationOptions

LEAST_SIZE = 8
"""Side in pixels of training images that are not used."""
Condition = Callable[[Any], NetworkInputs]
"""A network -> its inputs. Teacher and student are conditioned by networks of their own."""


@dataclass(frozen=True)
class CleanSamples:
    """A batch of clean samples.

    x0: `b ...` in the codec's space. cond: the conditioning with the prompt; uncond: without it, None for a stage that
    has no guidance. known: a mask `b ...` of the part of x0 that the conditioning shows; None if there is none.
    """

    x0: Tensor
    cond: Condition
    uncond: Condition | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class TeacherSource:
    """Draws clean samples for a stage of a teacher.

    options: of the distillation. encoder: the teacher's, by default.
    """

    teacher: UnclipModel
    name: str
    options: DistillationOptions
    encoder: FrozenEncoder = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoder", FrozenEncoder(self.teacher.encoder))

    @property
    def stage(self) -> Stage:
        """The teacher's stage."""
        if self.name == "upsampler":
            return self.teacher.upsamplers[0]
        prior = self.teacher.prior
        if self.name == "prior":
            assert isinstance(prior, DiffusionPrior), "the teacher has no diffusion prior"
            return prior.stage
        return self.teacher.decoder

    @property
    def size(self) -> int:
        """Side in pixels of the training images."""
        if self.options.source == "teacher":
            return LEAST_SIZE
        if self.name == "prior":
            return self.encoder.clip.config.image_size
        if self.name == "upsampler":
            return self.stage.size[0]
        return max(self.stage.size[0], self.encoder.clip.config.image_size)

    @torch.no_grad()
    def draw(self, batch: Batch) -> CleanSamples:
        """Clean samples for captions; a fraction of these is left out. The images are for the source "images"."""
        with torch.autocast(batch.images.device.type, enabled=False):
            if self.name == "prior":
                return self._of_prior(batch)
            if self.name == "upsampler":
                return self._of_upsampler(batch)
            return self._of_decoder(batch)

    def _of_prior(self, batch: Batch) -> CleanSamples:
        captions = drop_captions(batch.captions, batch.rand() < self.options.drop)
        text, negative = self.encoder.encode_text(captions), self._empty(len(captions))
        cond: Condition = lambda network: network.condition(text)  # noqa: E731
        uncond: Condition = lambda network: network.condition(negative)  # noqa: E731
        if self.options.source == "images":
            x0 = self.stage.network.whiten(self.encoder.encode_images(batch.images))
        else:
            x0 = self._sample(self.stage, cond, uncond, self._generators(batch))
        return CleanSamples(x0, cond, uncond)

    def _of_decoder(self, batch: Batch) -> CleanSamples:
        stage, images, captions = self.stage, batch.images, batch.captions
        generators = self._generators(batch)
        if self.options.source == "images":
            embed = self.encoder.encode_images(images)
        else:
            embed = self.prior_embed(captions, generators)
        captions = drop_captions(captions, batch.rand() < self.options.drop)
        cond, uncond = self.decoder_conditions(embed, self.encoder.encode_text(captions), batch, generators)
        if self.options.source == "images":
            x0 = stage.codec.encode(resize(images, stage.size)).float()
        else:
            x0 = self._sample(stage, cond(), uncond(), generators)
        if not stage.network.has_inpainting_inputs or self.teacher.inpainting_decoder is not None:
            return CleanSamples(x0, cond(), uncond())
        side, fraction = min(stage.size), self.options.known
        masks = batch.once(lambda generator: random_known_masks(batch.count, side, fraction, generator))
        mask = batch.own_rows(masks).to(x0)
        mask = F.interpolate(mask, size=(stage.size[1], stage.size[0]))
        known = stage.codec.encode_mask(mask)
        return CleanSamples(x0, cond(x0, known), uncond(x0, known), known.expand_as(x0))

    def _of_upsampler(self, batch: Batch) -> CleanSamples:
        stage, decoder, images, captions = self.stage, self.teacher.decoder, batch.images, batch.captions
        generators = self._generators(batch)
        if self.options.source == "images":
            small = resize(images, decoder.size)
        else:
            embed = self.prior_embed(captions, generators)
            cond, uncond = self.decoder_conditions(embed, self.encoder.encode_text(captions), batch, generators)
            small = decoder.codec.decode(self._sample(decoder, cond(), uncond(), generators))
        enlarged = stage.codec.encode(enlarge(small, stage.size))
        condition: Condition = lambda network: {"enlarged": enlarged}  # noqa: E731
        if self.options.source == "images":
            return CleanSamples(stage.codec.encode(resize(images, stage.size)), condition)
        return CleanSamples(self._sample(stage, condition, None, generators), condition)

    def prior_embed(self, captions: list[str], generators: Generators) -> Tensor:
        """Image embeddings `b d` that the teacher's prior samples for captions."""
        run = Run(generators, self.teacher.device, SamplingOptions(prior_steps=self.options.generation_steps))
        text, negative = self.encoder.encode_text(captions), self._empty(len(captions))
        return self.teacher.sample_prior(text, negative, run).clone()  # a copy, for gradients

    def decoder_conditions(
        self, embed: Tensor, text: TextEncoding, batch: Batch, generators: Generators
    ) -> tuple[Callable[..., Condition], Callable[..., Condition]]:
        """Functions of a known latent and its mask, or of nothing, that return `cond` and `uncond` of a decoder.

        embed: image embeddings `b d`. batch: draws the noise of decoders that add it to embeddings. generators: their
        seeds choose the layouts of decoders that have them, as in use; images come with theirs.
        Raises RecipeError for images without the layouts that the decoder needs.
        """
        network, negative = self.teacher.decoder.network, self._empty(len(embed))
        against = self.encoder.zero_embed().expand_as(embed) if network.guided_by_embedding else None
        augmented = embed
        if hasattr(network, "augment"):
            augmented = network.augment(embed, batch.randn_like(embed))
        layouts = None
        if getattr(network, "has_layouts", False):
            layouts = network.random_layouts([each.initial_seed() for each in generators])
            if self.options.source == "images":
                layouts = batch.layouts
                if layouts is None:
                    raise RecipeError(
                        f"the decoder of {self.teacher.name} has layouts: set layouts = true in [data], for scenes, or "
                        'leave source = "images" out'
                    )

        def condition(embed: Tensor | None, text: TextEncoding, *hint: Tensor) -> Condition:
            told: dict[str, Tensor] = {}
            if layouts is not None:  # open where pixels are known, as in edits
                known = hint[1].flatten(1).any(1)[:, None] if hint else False
                told["layout"] = layouts.to(text.embed.device).masked_fill(
                    torch.as_tensor(known, device=text.embed.device), 0.0
                )
            return lambda network: network.condition(embed, text, *hint, **told)

        return partial(condition, augmented, text), partial(condition, against, negative)

    def _sample(self, stage: Stage, cond: Condition, uncond: Condition | None, generators: Generators) -> Tensor:
        """Samples `b ...` of a stage, in the codec's space and in memory of their own."""
        network = stage.network
        inputs = StageInputs(cond(network), None if uncond is None else uncond(network))
        options = StageOptions(self.options.generation_steps)
        return replace(stage, codec=Identity()).run(inputs, generators, options).clone()

    def _empty(self, count: int) -> TextEncoding:
        return self.encoder.encode_text([""] * count)

    @staticmethod
    def _generators(batch: Batch) -> Generators:
        return make_generators(batch.randint(0, 2**62).tolist())


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images `b 3 h w` at another (width, height), in [-1, 1]."""
    if images.shape[-2:] == size[::-1]:
        return images
    return F.interpolate(images, size=size[::-1], mode="bicubic", antialias=True).clamp(-1, 1)
