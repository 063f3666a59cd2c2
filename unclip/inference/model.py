"""UnclipModel: a loaded checkpoint. Text -> embedding -> pixels, as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from unclip.diffusion.noise import Generators, randn
from unclip.diffusion.tiling import Tiling
from unclip.embeddings.files import read_components
from unclip.embeddings.principal_components import Components
from unclip.errors import RequestError, UnclipError
from unclip.inference.conditions import Conditioning, Known, Start
from unclip.inference.encoder import DecoderText, Encoder
from unclip.inference.priors import Prior
from unclip.inference.run_context import Run
from unclip.inference.speeds import Bundle
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.models.clip import Clip
from unclip.models.text import TextEncoding
from unclip.models.upsampler import enlarge
from unclip.requests.fields import PRIORS
from unclip.requests.values import size_text


@dataclass(frozen=True)
class UnclipModel:
    """The networks of a checkpoint, ready to sample.

    name           as records and messages name it
    clip           text encoder and, where the checkpoint has one, image encoder
    prior          text -> CLIP image embedding, by diffusion; None for checkpoints of image variations
    decoder        embedding and text -> the smallest image
    inpainting_decoder  a fine-tuned copy of the decoder that decodes where pixels are known; None if the decoder does
    upsamplers     each enlarges the image before it; those after the first run only where their size is asked for
    device         of the networks
    vocabulary     words of the training captions, where they are a closed set
    styles         styles of the sprites in the training scenes, where they are known (`stickers.sprites`)
    shown_above    CLIP similarity from which an image counts as showing its prompt, 0 .. 1. Below 1, the decoder was
                   trained to outpaint only new content that the prompt names
    revision       commit of a model from the hub
    folder         of the checkpoint
    image_encoder  name of the checkpoint that the image encoder is from, if it is another one
    prior_name     name of the checkpoint that the prior is from, if another one than the model's own was given
    loras          names of the LoRA files that were added, with their scales
    decoder_text   the decoder's own text encoder; None for a decoder conditioned on CLIP's
    autoregressive_prior  text -> CLIP image embedding, code by code; None for checkpoints without one
    default_prior  kind of prior of requests that name none; None is the first of requests.fields.PRIORS that it has
    speeds         fields of a Request that each `speed` but "best" sets (see `inference.speeds`)
    """

    name: str
    clip: Clip
    prior: Prior | None
    decoder: Stage
    upsamplers: tuple[Stage, ...]
    device: torch.device
    vocabulary: frozenset[str] | None = None
    shown_above: float = 1.0
    revision: str | None = None
    folder: Path | None = None
    image_encoder: str | None = None
    prior_name: str | None = None
    loras: tuple[str, ...] = ()
    decoder_text: DecoderText | None = None
    autoregressive_prior: Prior | None = None
    default_prior: str | None = None
    speeds: Mapping[str, Bundle] = field(default_factory=dict)
    styles: tuple[str, ...] = ()
    inpainting_decoder: Stage | None = None

    @property
    def dtype(self) -> str:
        """The precision of the denoisers: "float32", "bfloat16" or "float16"."""
        return str(self.decoder.dtype).removeprefix("torch.")

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) in pixels of the decoder's and each upsampler's images, smallest first."""
        return [stage.size for stage in (self.decoder, *self.upsamplers)]

    @property
    def default_size(self) -> tuple[int, int]:
        """(width, height) in pixels of images whose request has no size: the first upsampler's, if there is one."""
        return self.sizes[:2][-1]

    @property
    def noise_levels(self) -> int:
        """Levels of the noise that the decoder adds to image embeddings; 0 for a decoder that adds none."""
        return getattr(self.decoder.network, "noise_levels", 0)

    def check_noise_level(self, level: int) -> None:
        """Raise RequestError for a noise level that the model does not have."""
        if self.noise_levels == 0:
            raise RequestError(f"{self.name} adds no noise to embeddings, as Stable unCLIP does: leave noise_level out")
        if level >= self.noise_levels:
            raise RequestError(f"noise_level is {level}; {self.name} has the levels 0 to {self.noise_levels - 1}")

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise RequestError for a (width, height) in pixels that the model does not generate."""
        if self.decoder.any_size:
            self.decoder.codec.latent_shape(size[1], size[0])
        elif size not in self.sizes:
            known = ", ".join(size_text(known) for known in self.sizes)
            raise RequestError(f"{self.name} does not generate images of {size_text(size)}; choose from {known}")

    def decoder_size(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """(width, height) of the decoder's images for images of `size`; None is the default size."""
        return self.sizes[0] if size is None or not self.decoder.any_size else size

    @property
    def edit_decoder(self) -> Stage:
        """The stage that decodes where pixels are known: the inpainting decoder, or the decoder if there is none."""
        return self.decoder if self.inpainting_decoder is None else self.inpainting_decoder

    @cached_property
    def encoder(self) -> Encoder:
        """Prompts and images to embeddings."""
        return Encoder(self.name, self.clip, self.device, self.decoder_text)

    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        """Prompts -> embeddings `b d`, states `b n d`, mask `b n`."""
        return self.encoder.encode_text(prompts)

    @torch.inference_mode()
    def sample_prior(self, text: TextEncoding, negative: TextEncoding, run: Run) -> Tensor:
        """CLIP image embeddings `b d` for texts. Raises RequestError for a model without a prior."""
        return self.require_prior(run.options.prior).sample(text, negative, run)

    def sample(
        self, conditioning: Conditioning, run: Run, known: Known | None = None, start: Start | None = None
    ) -> Tensor:
        """Images `b 3 H W` in [-1, 1]: decode, then upsample to `run.options.size`.

        known: pixels to preserve, at full resolution; every stage keeps them. start: how the decoder starts.
        Raises UnclipError for an image with values that are not finite.
        """
        width, height = self.sizes[0]
        small = self.decode(conditioning, run, None if known is None else known.resized(height, width), start)
        return self.upsample(small, run, known)  # b 3 64 64 -> b 3 256 256

    @torch.inference_mode()
    def decode(
        self,
        conditioning: Conditioning,
        run: Run,
        known: Known | None = None,
        start: Start | None = None,
        tiling: Tiling | None = None,
    ) -> Tensor:
        """Small images `b 3 h w` in [-1, 1] from embeddings and text.

        known: pixels to preserve, at this size. tiling: the windows of one larger canvas (b = 1), each with its row of
        the conditioning. Raises UnclipError for an image with values that are not finite.
        """
        stage, options = self.decoder if known is None else self.edit_decoder, run.options
        network = stage.network
        size = self.decoder_size(options.size) if known is None else (known.image.shape[3], known.image.shape[2])
        hint, canvas = (), {}
        if known is not None:
            hint = (stage.codec.encode(known.hint[0]), stage.codec.encode_mask(known.hint[1]))
            if tiling is not None:  # the hint covers the canvas; each window gets its part
                canvas, hint = {"hint": network.hint(*hint)} if network.has_inpainting_inputs else {}, ()
        embed = conditioning.embed
        if hasattr(network, "augment"):
            noise = randn(embed.shape[1:], generators_of_rows(run, len(embed)), embed.device)
            embed = network.augment(embed, noise, options.noise_level)
        layout: dict[str, Tensor] = {}
        is_new = start is None or (start.noise is None and start.draft is None)
        if getattr(network, "has_layouts", False) and known is None and tiling is None and is_new:
            # Nothing else says where objects are, so the seed does; the same with and without guidance.
            layout["layout"] = network.random_layouts([each.initial_seed() for each in run.generators])
        inputs = StageInputs(
            network.condition(embed, conditioning.text, *hint, **layout),
            network.condition(self._negative_embed(conditioning), conditioning.negative, *hint, **layout),
            tiling,
            canvas,
        )
        how = StageOptions(
            options.steps,
            options.sampler,
            options.guidance,
            options.spacing,
            options.guidance_interval,
            options.guidance_every,
            options.cache_every,
            options.resample,
            size,
        )
        with run.stage("decoder") as report:
            x = stage.run(inputs, run.generators, how, known, Start() if start is None else start, report)
        return require_finite(x)

    @torch.inference_mode()
    def upsample(self, images: Tensor, run: Run, known: Known | None = None) -> Tensor:
        """Images `b 3 h w` in [-1, 1] of the decoder's size -> `b 3 H W` of size `run.options.size`.

        known: pixels to preserve, at full resolution. Raises UnclipError for an image with values that are not finite.
        """
        target = self.default_size if run.options.size is None else run.options.size
        for upsampler, size in zip(self.upsamplers, self.sizes[1:], strict=True):
            if size[0] > target[0]:
                break
            inputs = StageInputs({"enlarged": upsampler.codec.encode(enlarge(images, size))})
            kept = None if known is None else known.resized(size[1], size[0])
            with run.stage(upsampler.name) as report:
                cache_every = 1 if upsampler.feed_forward else run.options.upsampler_cache_every
                how = StageOptions(run.options.upsampler_steps, cache_every=cache_every)
                images = upsampler.run(inputs, run.generators, how, kept, report=report)  # b 3 H W
        return require_finite(images)

    @torch.inference_mode()
    def invert(self, images: Tensor, conditioning: Conditioning, run: Run) -> Tensor:
        """The initial noise `b c h w` of images `b 3 h w` in [-1, 1] at the decoder's size, by DDIM inversion."""
        with run.stage("inversion") as report:
            network, embed = self.decoder.network, conditioning.embed
            if hasattr(network, "augment"):  # without noise: what sampling will draw is not known
                embed = network.augment(embed, torch.zeros_like(embed), run.options.noise_level)
            cond = network.condition(embed, conditioning.text)
            how = StageOptions(run.options.steps, spacing=run.options.spacing)
            return self.decoder.invert(images, cond, how, report.progress)

    @property
    def null_embed(self) -> Tensor:
        """The image embedding `d` of no image: the decoder's learned one, or that of a blank image."""
        return self.null_embed_of(self.decoder)

    def null_embed_of(self, decoder: Stage) -> Tensor:
        """The image embedding `d` of no image, for the decoder or the inpainting decoder."""
        network = decoder.network
        return self.encoder.zero_embed if network.guided_by_embedding else network.null_embed

    def _negative_embed(self, conditioning: Conditioning) -> Tensor | None:
        """Image embeddings `b d` that guidance steers away from; None for a decoder that has a learned one."""
        if not self.decoder.network.guided_by_embedding:
            return None
        if conditioning.negative_embed is not None:
            return conditioning.negative_embed
        return self.encoder.zero_embed.expand_as(conditioning.embed)

    @cached_property
    def priors(self) -> dict[str, Prior]:
        """The priors that the model has, by kind; the first is the default."""
        found = dict(zip(PRIORS, (self.prior, self.autoregressive_prior), strict=True))
        kinds = sorted(PRIORS, key=lambda kind: kind != self.default_prior)
        return {kind: prior for kind in kinds if (prior := found[kind]) is not None}

    def require_prior(self, kind: str | None = None) -> Prior:
        """The prior of a kind, by default the model's first. Raises RequestError for a model without it."""
        if not self.priors:
            raise RequestError(
                f"{self.name} has no prior, so a prompt alone cannot guide it: give an image (unclip vary, or "
                "Unclip.vary) or an embedding (--embedding), or use another model"
            )
        kind = next(iter(self.priors)) if kind is None else kind
        if kind not in self.priors:
            known = " and ".join(self.priors)
            raise RequestError(f"{self.name} has no {kind} prior, only {known}: leave prior out, or use another model")
        return self.priors[kind]

    def components(self) -> Components:
        """The principal components of the model's image embeddings. Raises RequestError if it has none yet."""
        found = None if self.folder is None else read_components(self.folder, self.clip.config.embed_dim)
        if found is None:
            raise RequestError(
                f"{self.name} has no principal components yet: make them with `unclip models components {self.name}`, "
                "from a folder of images with --images FOLDER"
            )
        return found


def generators_of_rows(run: Run, rows: int) -> Generators:
    """The generator of each row of a conditioning: its image's, or that of the canvas whose windows the rows are."""
    return run.generators if len(run.generators) == rows else [*run.generators] * rows


def require_finite(images: Tensor) -> Tensor:
    """The same images. Raises UnclipError if a value is not finite."""
    if not images.isfinite().all():
        raise UnclipError("the image has values that are not finite: use a lower guidance, or --dtype float32")
    return images
