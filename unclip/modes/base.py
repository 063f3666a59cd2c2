"""The Mode protocol, and the steps that several modes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import make_generators
from unclip.images.processing import to_images
from unclip.inference.callbacks import Progress
from unclip.inference.conditions import Conditioning
from unclip.inference.model import UnclipModel
from unclip.inference.run_context import Run, SamplingOptions
from unclip.inference.stage import Stage
from unclip.models.text import TextEncoding
from unclip.requests.request import Request
from unclip.requests.sources import EmbeddingBytes

T = TypeVar("T")
Requirement = Literal["prior", "image encoder", "text encoder"]


@dataclass(frozen=True)
class Output:
    """One generated image. score: CLIP similarity, or None. notes: messages for the user."""

    image: Image.Image
    score: float | None
    notes: tuple[str, ...] = ()


class Mode(Protocol):
    """A mode: it determines the embeddings, the initial noise and the known pixels of images."""

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        """The fields that this mode fills in where they are None, over the model's own defaults."""
        ...

    def requirements(self, model: UnclipModel, request: Request) -> set[Requirement]:
        """The optional parts of a model that a resolved request needs."""
        ...

    def check(self, model: UnclipModel, request: Request) -> None:
        """Check the input files as far as their headers tell, before any work. Raises DataError or RequestError."""
        ...

    def generate(self, model: UnclipModel, requests: Sequence[Request], run: Run) -> list[Output]:
        """Generate one image per resolved request. All requests are of this mode and one micro-batch."""
        ...


def resolved(value: T | None) -> T:
    """The value of a field of a resolved request, which is not None."""
    assert value is not None, "the request is not resolved"
    return value


def make_run(model: UnclipModel, requests: Sequence[Request], callback: Progress | None = None) -> Run:
    """The run of a micro-batch of resolved requests, one image each."""
    return Run(
        make_generators([resolved(request.seed) for request in requests]),
        model.device,
        sampling_options(requests[0]),
        callback,
    )


def sampling_options(request: Request) -> SamplingOptions:
    """The sampling options of a resolved request. All requests of a micro-batch have the same."""
    return SamplingOptions(
        prior=request.prior,
        prior_steps=request.prior_steps,
        prior_sampler=request.prior_sampler,
        prior_guidance=request.prior_guidance,
        prior_temperature=request.prior_temperature,
        prior_top_p=request.prior_top_p,
        prior_best_of=1 if request.prior_best_of is None else request.prior_best_of,
        steps=request.steps,
        sampler=request.sampler,
        guidance=request.guidance,
        spacing="uniform" if request.spacing is None else request.spacing,
        guidance_interval=request.guidance_interval,
        guidance_every=1 if request.guidance_every is None else request.guidance_every,
        cache_every=1 if request.cache_every is None else request.cache_every,
        upsampler_steps=request.upsampler_steps,
        noise_level=0 if request.noise_level is None else request.noise_level,
        upsampler_cache_every=1 if request.upsampler_cache_every is None else request.upsampler_cache_every,
        resample=1 if request.resample is None else request.resample,
        size=None if request.edits_canvas else request.size,
    )


def decoder_of(model: UnclipModel, request: Request) -> Stage:
    """The stage of the decoder that a request uses: edits may have one of their own."""
    return model.edit_decoder if request.edits_canvas else model.decoder


def read_embeddings(model: UnclipModel, files: Sequence[str | EmbeddingBytes | None]) -> list[Tensor | None]:
    """The image embedding `d` in each file; None where there is no file."""
    return [None if file is None else model.encoder.read_embedding(file) for file in files]


def make_conditioning(
    model: UnclipModel, given: Sequence[Tensor | None], text: TextEncoding, negative: TextEncoding, run: Run
) -> Conditioning:
    """The conditioning of the decoder for prompts `b`: the given image embeddings `d`, else the prior's.

    For a decoder that is guided by embeddings, the prior also samples that of each negative prompt, in the same batch,
    as other software does: the same seed gives the same image.
    """
    count, rows = len(given), []
    if model.decoder.network.guided_by_embedding:
        rows = (~negative.is_empty).nonzero().flatten().tolist()
    against = negative.rows(rows)
    embeds = sample_missing(
        model,
        [*given, *[None] * len(rows)],
        text.append(against),
        negative.append(against),
        run.rows([*range(count), *rows]),
    )
    negative_embed = None
    if rows:
        negative_embed = model.encoder.zero_embed.repeat(count, 1)  # b d
        negative_embed[rows] = embeds[count:]
    return Conditioning(embeds[:count], text, negative, negative_embed)


def sample_missing(
    model: UnclipModel, given: Sequence[Tensor | None], text: TextEncoding, negative: TextEncoding, run: Run
) -> Tensor:
    """CLIP image embeddings `b d`: the given ones `d`, and samples of the prior where one is None.

    Only rows without a given one use their generator.
    """
    embed = torch.zeros_like(text.embed)
    for row, own in enumerate(given):
        if own is not None:
            embed[row] = own
    rows = [row for row, own in enumerate(given) if own is None]
    if rows:
        embed[rows] = model.sample_prior(text.rows(rows), negative.rows(rows), run.rows(rows)).to(embed)
    return embed


def score_and_convert(
    model: UnclipModel, images: Tensor, prompts: Sequence[str], conditioning: Conditioning
) -> list[Output]:
    """Images `b 3 h w` as outputs, scored against their prompts, or against the embedding where there is no prompt."""
    scores = model.encoder.score_samples(images, prompts, conditioning.text.embed, conditioning.embed)
    return [Output(image, score) for image, score in zip(to_images(images), scores, strict=True)]
