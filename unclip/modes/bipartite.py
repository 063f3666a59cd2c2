"""Pictures by their bipartite latent (z_i, x_T): the CLIP image embedding, and the noise that the decoder maps to them.

Ramesh et al. 2022 (arXiv:2204.06125), section 3. Variations, interpolations, text diffs and reconstructions say which
embedding and which noise a picture is drawn from; it is drawn as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import generators, randn
from unclip.embeddings.algebra import mix, slerp, text_diff
from unclip.images.processing import squared, to_images, to_tensor
from unclip.inference.callbacks import Progress
from unclip.models.text import TextEncoding
from unclip.requests.request import Request
from unclip.requests.sources import check_is_prompt, source_kind

if TYPE_CHECKING:
    from unclip.modes.inpainting.inpaint import Edited
    from unclip.pipeline import Unclip


@dataclass(frozen=True)
class Ends:
    """What the images of a batch are drawn from, an entry for each: embeddings `n d`, noises `n c h w`, notes.

    The noises are None where all of them begin with new noise.
    """

    embeds: list[Tensor]
    noises: list[Tensor] | None
    notes: list[tuple[str, ...]]


@torch.inference_mode()
def draw_latents(
    pipe: "Unclip", requests: Sequence[Request], progress: Progress | None = None
) -> "tuple[list[Edited], dict[str, float]]":
    """Resolved requests of one mode, one image each and alike in steps, guidance and samplers -> pictures, seconds.

    A picture that several of them share is embedded and inverted once.
    """
    first, noise = requests[0], generators([request.seed for request in requests])
    timings: dict[str, float] = {}
    read = [read_of(request) for request in requests]
    text, negative = pipe.encode_text(read), pipe.encode_text([request.negative_prompt for request in requests])
    ends = find_ends(pipe, requests, text, noise, progress, timings)
    embed = torch.stack([embed_of(pipe, *pair) for pair in zip(requests, ends.embeds, strict=True)])  # b d
    start = None
    if ends.noises is not None:
        pairs = zip(requests, ends.noises, strict=True)
        start = torch.stack([mix(x.flatten(1), weights_of(request)).view_as(x[0]) for request, x in pairs])  # b c h w
    eta = first.strength if first.mode == "vary" and first.inverts else 0.0
    x = pipe.paint(embed, text, negative, noise, first, progress, timings, start=start, eta=eta)
    prompts = [request.prompt for request in requests]
    said = text if prompts == read else pipe.encode_text(prompts)
    wanted = [
        one if request.embedding is None else pipe.read_embedding(request.embedding)
        for request, one in zip(requests, embed, strict=True)
    ]
    scores = pipe.scores(x, prompts, said.embed, torch.stack(wanted))
    return list(zip(to_images(x), scores, ends.notes, strict=True)), timings


def read_of(request: Request) -> str:
    """The text that the decoder reads: of a text diff neither what was there nor what is to come, which are in z."""
    return "" if request.mode == "edit" else request.prompt


def sources_of(request: Request) -> tuple[Any, ...]:
    """What a request is drawn from: the ends of an interpolation, or its picture."""
    return request.sources if request.mode == "interpolate" else (request.image,)


def weights_of(request: Request) -> tuple[float, ...]:
    """How much of each."""
    if request.mode != "interpolate":
        return (1.0,)
    return (1 - request.fraction, request.fraction) if request.weights is None else request.weights


def open_ends(pipe: "Unclip", request: Request) -> None:
    """Find out whether what a request is drawn from is there. Raises DataError; RequestError without components."""
    if request.components is not None:
        pipe.components().check(max(request.components))
    for source in sources_of(request) if request.mode != "generate" else ():
        kind = source_kind(source) if request.mode == "interpolate" else "picture"
        if kind == "picture":
            squared(source, "crop")
        elif kind == "embedding":
            pipe.read_embedding(source)
        else:
            check_is_prompt(source)


def embed_of(pipe: "Unclip", request: Request, ends: Tensor) -> Tensor:
    """The embedding `d` that an image is drawn by, from those of its ends, `n d`."""
    if request.mode == "edit":
        if request.embedding is not None:  # a picture's, as the end is: the way leads straight there
            return slerp(ends, pipe.read_embedding(request.embedding)[None], request.theta)[0]
        there, here = pipe.encode_text([request.prompt, request.from_prompt]).embed.chunk(2)
        return text_diff(ends, there, here, request.theta)[0]
    if request.components is not None:
        return pipe.components().project(ends, request.components[0])[0]
    return mix(ends, weights_of(request))


def find_ends(
    pipe: "Unclip",
    requests: Sequence[Request],
    text: TextEncoding,
    noise: Sequence[torch.Generator],
    progress: Progress | None,
    timings: dict[str, float],
) -> Ends:
    """The embeddings and, where the requests are inverted, the noises of what they are drawn from.

    A prompt's embedding is the prior's, drawn from its image's generator; so is the noise of an end without a picture.
    """
    first = requests[0]
    places = [(i, source) for i, request in enumerate(requests) for source in sources_of(request)]
    kinds = [source_kind(source) if first.mode == "interpolate" else "picture" for _, source in places]
    embeds: list[Any] = [None] * len(places)
    noises: list[Any] = [None] * len(places)
    notes: list[tuple[str, ...]] = [()] * len(requests)

    pictured = [k for k, kind in enumerate(kinds) if kind == "picture"]
    # Pictures that several images share; a picture in memory is told by which object it is.
    keys = {k: picture_key(requests[places[k][0]], places[k][1]) for k in pictured}
    rows = list(dict.fromkeys(keys.values()))
    if rows:
        one_of = [next(k for k in pictured if keys[k] == row) for row in rows]
        opened = [squared(places[k][1], requests[places[k][0]].fit) for k in one_of]
        found = pipe.embed_image([picture for picture, _ in opened])  # rows d
        inverted = None
        if first.inverts:
            side = pipe.sizes[0]
            small = [to_tensor(picture.resize(side, Image.Resampling.BICUBIC)) for picture, _ in opened]
            own = TextEncoding(*(part[[places[k][0] for k in one_of]] for part in text))
            inverted = pipe.invert(torch.stack(small), found, own, first, progress, timings)  # rows c h w
        for k in pictured:
            i, row = places[k][0], rows.index(keys[k])
            embeds[k] = found[row]
            noises[k] = None if inverted is None else inverted[row]
            notes[i] = (*notes[i], *opened[row][1])

    files = [source if kind == "embedding" else None for (_, source), kind in zip(places, kinds, strict=True)]
    others = [k for k, kind in enumerate(kinds) if kind != "picture"]
    if others:
        prompts = [places[k][1] if files[k] is None else "" for k in others]
        guiding = pipe.guide(
            [files[k] for k in others],
            pipe.encode_text(prompts),
            pipe.encode_text([requests[places[k][0]].negative_prompt for k in others]),
            [noise[places[k][0]] for k in others],
            first,
            progress,
        )
        for k, embed in zip(others, guiding, strict=True):
            embeds[k] = embed
    if first.inverts:
        for i in sorted({places[k][0] for k in others}):
            [new] = randn(pipe.decoder.shape, [noise[i]], pipe.device)
            for k in others:
                noises[k] = new if places[k][0] == i else noises[k]

    def grouped(values: list[Tensor]) -> list[Tensor]:
        return [
            torch.stack([v for (j, _), v in zip(places, values, strict=True) if j == i]) for i in range(len(requests))
        ]

    return Ends(grouped(embeds), grouped(noises) if first.inverts else None, notes)


def picture_key(request: Request, source: Any) -> tuple[Any, ...]:
    """What a picture's latent depends on, within a batch."""
    return (source if isinstance(source, str) else id(source), request.fit, read_of(request))
