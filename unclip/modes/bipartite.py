"""Images by their bipartite latent (z_i, x_T): the CLIP image embedding, and the noise that the decoder maps to it.

Ramesh et al. 2022 (arXiv:2204.06125), section 3. Variations, interpolations, text diffs and reconstructions differ only
in the embedding and the initial noise that the decoder gets; this file has the steps that they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import randn
from unclip.embeddings.algebra import mix
from unclip.images.processing import open_square, to_tensor
from unclip.images.reading import check_header
from unclip.inference.conditions import Conditioning, Start
from unclip.inference.model import UnclipModel
from unclip.inference.run_context import Run
from unclip.models.text import TextEncoding
from unclip.modes.base import (
    Output,
    Requirement,
    make_conditioning,
    read_embeddings,
    resolved,
    sample_missing,
    score_and_convert,
)
from unclip.requests.request import Request
from unclip.requests.sources import check_is_no_file

INVERSION_STEPS = 25
"""Default denoising steps of requests that invert an image."""


@dataclass(frozen=True)
class Latents:
    """The bipartite latents of one image's sources: embeddings `n d`, and noises `n c h w` or None for new noise."""

    embeds: Tensor
    noises: Tensor | None
    notes: tuple[str, ...]


class BipartiteMode:
    """A mode that samples from the latents of its sources. Subclasses override how these are combined."""

    def sources(self, request: Request) -> Sequence[Any]:
        """Images, embedding files or prompts: by default the image of the request."""
        return (request.image,)

    def kind(self, source: Any) -> str:
        """The kind of a source: "image", "embedding" or "prompt"."""
        return "image"

    def weights(self, request: Request) -> Sequence[float]:
        """The weight of each source."""
        return (1.0,)

    def decoder_prompt(self, request: Request) -> str:
        """The text that conditions the decoder."""
        return request.prompt

    def combine(self, model: UnclipModel, request: Request, embeds: Tensor) -> Tensor:
        """The embedding `d` of the image, from the embeddings `n d` of its sources."""
        return mix(embeds, self.weights(request))

    def eta(self, request: Request) -> float:
        """The fraction of the initial noise that sampling renews."""
        return 0.0

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        if not request.inverts:
            return {"fit": "crop"}
        # DDIM inversion assumes guidance 1; with more new noise, guidance is useful again.
        guidance = 1 + (request.strength or 0.0) * (model.decoder.guidance - 1)
        return {"fit": "crop", "steps": INVERSION_STEPS, "sampler": "ddim", "guidance": guidance}

    def requirements(self, model: UnclipModel, request: Request) -> set[Requirement]:
        needs: dict[str, Requirement] = {"prompt": "prior", "image": "image encoder"}
        kinds = {self.kind(source) for source in self.sources(request)}
        return {needs[kind] for kind in kinds if kind in needs}

    def check(self, model: UnclipModel, request: Request) -> None:
        for source in self.sources(request):
            kind = self.kind(source)
            if kind == "image":
                check_header(source, "image", max_side=None)
            elif kind == "embedding":
                model.encoder.read_embedding(source)
            else:
                check_is_no_file("source", source)

    @torch.inference_mode()
    def generate(self, model: UnclipModel, requests: Sequence[Request], run: Run) -> list[Output]:
        decoder_prompts = [self.decoder_prompt(request) for request in requests]
        text = model.encode_text(decoder_prompts)
        negative = model.encode_text([request.negative_prompt for request in requests])
        latents = self.find_latents(model, requests, text, run)

        pairs = list(zip(requests, latents, strict=True))
        embeds = [self.combine(model, request, found.embeds) for request, found in pairs]  # each d
        start = Start(self._mix_noises(pairs), eta=self.eta(requests[0]))
        conditioning = make_conditioning(model, embeds, text, negative, run)
        images = model.sample(conditioning, run, start=start)  # b 3 H W

        prompts = [request.prompt for request in requests]
        asked = text if prompts == decoder_prompts else model.encode_text(prompts)
        targets = [
            own if request.embedding is None else model.encoder.read_embedding(request.embedding)
            for request, own in zip(requests, embeds, strict=True)
        ]
        outputs = score_and_convert(model, images, prompts, Conditioning(torch.stack(targets), asked, negative))
        return [Output(output.image, output.score, found.notes) for output, found in zip(outputs, latents, strict=True)]

    def _mix_noises(self, pairs: Sequence[tuple[Request, Latents]]) -> Tensor | None:
        """The initial noise `b c h w`, mixed from the sources' noises, or None for new noise."""
        mixed = [
            mix(found.noises.flatten(1), self.weights(request)).view_as(found.noises[0])
            for request, found in pairs
            if found.noises is not None
        ]
        return torch.stack(mixed) if mixed else None

    def find_latents(
        self, model: UnclipModel, requests: Sequence[Request], text: TextEncoding, run: Run
    ) -> list[Latents]:
        """The latents of each request's sources. text: what the decoder reads, one row per request.

        An image that several requests share is opened, embedded and inverted once. The embedding of a prompt is sampled
        from the prior. If the requests invert, a source that is not an image gets new noise, one per request.
        """
        sources = [
            Source(row, request, value, self.kind(value), self.decoder_prompt(request))
            for row, request in enumerate(requests)
            for value in self.sources(request)
        ]
        others = [source for source in sources if source.kind != "image"]
        found = find_image_latents(model, [s for s in sources if s.kind == "image"], text, run)
        found |= find_prior_embeddings(model, others, run)
        if requests[0].inverts:
            for row in sorted({source.row for source in others}):
                width, height = model.decoder_size(run.options.size)
                shape = model.decoder.codec.latent_shape(height, width)
                [new] = randn(shape, [run.generators[row]], model.device)  # c h w
                found |= {s: Latent(found[s].embed, new) for s in others if s.row == row}
        return [
            gather_latents([found[source] for source in sources if source.row == row]) for row in range(len(requests))
        ]


@dataclass(frozen=True, eq=False)
class Source:
    """A source of a request. row: of the request in its micro-batch. decoder_prompt: the text for the decoder."""

    row: int
    request: Request
    value: Any
    kind: str
    decoder_prompt: str

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for images with the same latent. An image in memory is identified by the object."""
        return self.value if isinstance(self.value, str) else id(self.value), self.request.fit, self.decoder_prompt


@dataclass(frozen=True)
class Latent:
    """The latent of one source: embedding `d`, noise `c h w` or None, notes for the user."""

    embed: Tensor
    noise: Tensor | None = None
    notes: tuple[str, ...] = ()


def gather_latents(sources: Sequence[Latent]) -> Latents:
    """The latents of all sources of a request."""
    noises = [source.noise for source in sources if source.noise is not None]
    notes = tuple(note for source in sources for note in source.notes)
    return Latents(torch.stack([source.embed for source in sources]), torch.stack(noises) if noises else None, notes)


def find_image_latents(
    model: UnclipModel, sources: Sequence[Source], text: TextEncoding, run: Run
) -> dict[Source, Latent]:
    """Embed the images and, if the requests invert, find their noise. text: one row per request."""
    if not sources:
        return {}
    unique: dict[Any, Source] = {}
    for source in sources:
        unique.setdefault(source.key, source)
    opened = [open_square(source.value, resolved(source.request.fit)) for source in unique.values()]
    embeds = model.encoder.embed_images([image for image, _ in opened])  # n d
    noises: Sequence[Tensor | None] = [None] * len(unique)
    if sources[0].request.inverts:
        size = model.decoder_size(run.options.size)
        small = [to_tensor(image.resize(size, Image.Resampling.BICUBIC)) for image, _ in opened]
        own = text.rows([source.row for source in unique.values()])
        noises = list(model.invert(torch.stack(small), Conditioning(embeds, own, own), run))  # n c h w
    notes = [notes for _, notes in opened]
    latents = {
        key: Latent(embed, noise, own) for key, embed, noise, own in zip(unique, embeds, noises, notes, strict=True)
    }
    return {source: latents[source.key] for source in sources}


def find_prior_embeddings(model: UnclipModel, sources: Sequence[Source], run: Run) -> dict[Source, Latent]:
    """Read the embedding of each file, and sample an embedding for each prompt from the prior."""
    if not sources:
        return {}
    embeds = sample_missing(
        model,
        read_embeddings(model, [source.value if source.kind == "embedding" else None for source in sources]),
        model.encode_text([source.value if source.kind == "prompt" else "" for source in sources]),
        model.encode_text([source.request.negative_prompt for source in sources]),
        run.rows([source.row for source in sources]),
    )
    return {source: Latent(embed) for source, embed in zip(sources, embeds, strict=True)}
