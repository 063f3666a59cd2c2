"""Unclip: text -> embedding -> pixels."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.canvas import open_canvas, to_images, to_square, to_tensor
from unclip.checkpoints import Checkpoint, load_checkpoint
from unclip.device import pick_device, pick_dtype
from unclip.diffusion.noise import generators
from unclip.editing import edit
from unclip.errors import RequestError, UnclipError
from unclip.models.clip import TextEncoding, Tokenizer
from unclip.models.upsampler import enlarge
from unclip.request import FIELDS_OF, Request, Result, size_text
from unclip.stage import Known, Stage
from unclip.words import unknown_words

Picture = str | Path | Image.Image
Progress = Callable[[str, int, int], None]
"""(stage, done, total): called after each denoising step."""

OWN_FIELDS = {"prompt", "negative", "seed", "id", *chain.from_iterable(FIELDS_OF.values())} - {"harmonize"}
"""Fields in which the images of one micro-batch may differ."""


class Unclip:
    """A loaded checkpoint, ready to draw. Build one with `from_pretrained`."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device):
        self.name = checkpoint.name
        self.revision = checkpoint.revision
        self.device = device
        self.clip = checkpoint.clip
        self.prior = checkpoint.prior
        self.decoder = checkpoint.decoder
        self.upsamplers = checkpoint.upsamplers
        self.vocabulary = checkpoint.vocabulary
        self.prior_best_of = checkpoint.prior_best_of
        self.tokenizer = Tokenizer(self.clip.config.context_length, self.clip.config.transformers_tokens)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "auto", dtype: str = "auto", memory: str = "auto"
    ) -> "Unclip":
        """A bundled model's name, a checkpoint folder, or a hub id ("owner/name", "owner/name@commit") -> a pipeline.

        A hub id is fetched if it is not in the cache; one that is needs no network.

        device: "auto", "cpu", "cuda", "mps". dtype: of the denoisers; "auto" is bfloat16 where the device computes it
        natively, float32 elsewhere. memory: "high" keeps all networks on the device, "low" one at a time; "auto" does
        what the free memory allows. Raises CheckpointError for an unknown name or a damaged file.
        """
        where = pick_device(device)
        return cls(load_checkpoint(name, where, pick_dtype(dtype, where), memory), where)

    # ---- text -> embedding -> pixels

    @torch.inference_mode()
    def draw(
        self, requests: Sequence[Request], progress: Progress | None = None, *, embed: Tensor | None = None
    ) -> tuple[Tensor, list[float | None], dict[str, float]]:
        """Resolved requests, one image each and alike in all but prompts and seeds -> pictures, scores, seconds.

        The pictures are `b 3 h w` in [-1, 1], the seconds those of each stage. A score is the `similarity` of picture
        and prompt, or None where the checkpoint has no image tower to tell it. Each picture has a generator of its own,
        which the stages use one after another. embed: CLIP image embeddings `b d` (see `embed_image`) to draw, instead
        of those that the prior imagines. Raises UnclipError for a picture that is not finite.
        """
        first, noise, timings = requests[0], generators([request.seed for request in requests]), {}
        with timed(timings, "text", self.device):
            text = self.encode_text([request.prompt for request in requests])  # b d, b n d
            negative = self.encode_text([request.negative for request in requests])
        if embed is None:
            with timed(timings, "prior", self.device):
                embed = self.imagine(text, negative, noise, first, progress)  # b d
        x = self.paint(embed, text, negative, noise, first, progress, timings)  # b 3 h w
        scores = [None] * len(x) if self.clip.visual is None else self.similarity(x, text.embed).tolist()
        return x, scores, timings

    @torch.inference_mode()
    def paint(
        self,
        embed: Tensor,
        text: TextEncoding,
        negative: TextEncoding,
        noise: Sequence[torch.Generator],
        request: Request,
        progress: Progress | None,
        timings: dict[str, float],
        known: Known | None = None,
    ) -> Tensor:
        """Embeddings `b d` and their texts -> pictures `b 3 h w` in [-1, 1]: the decoder, then the upsamplers.

        known: what is to stay as it is, at the largest size; it is held to in every stage. `timings` gains the seconds
        of each. Raises UnclipError for a picture that is not finite.
        """
        sizes = self.sizes if known is not None else [size for size in self.sizes if size[0] <= request.size[0]]
        held = [None if known is None else known.resized(height, width) for width, height in sizes]
        network, codec = self.decoder.network, self.decoder.codec
        hint = () if known is None else (codec.encode(held[0].hint[0]), codec.encode_mask(held[0].hint[1]))
        with timed(timings, "decoder", self.device):
            x = self.decoder.run(
                network.condition(embed, text, *hint),
                network.condition(network.projection.null_embed.expand_as(embed), negative, *hint),
                noise,
                steps=request.steps,
                sampler=request.sampler,
                guidance=request.guidance,
                known=held[0],
                repeats=request.harmonize or 1,
                progress=steps_of("decoder", progress),
            )  # b 3 64 64
        for upsampler, size, kept in zip(self.upsamplers, sizes[1:], held[1:], strict=False):
            with timed(timings, upsampler.name, self.device):
                x = upsampler.run(
                    {"enlarged": upsampler.codec.encode(enlarge(x, size))},
                    None,
                    noise,
                    steps=request.upsampler_steps,
                    known=kept,
                    progress=steps_of(upsampler.name, progress),
                )  # b 3 256 256
        if not x.isfinite().all():
            raise UnclipError("the picture is not finite: use a lower guidance, or float32 (--dtype float32)")
        return x

    def imagine(
        self,
        text: TextEncoding,
        negative: TextEncoding,
        noise: Sequence[torch.Generator],
        request: Request,
        progress: Progress | None = None,
    ) -> Tensor:
        """The prior: CLIP image embeddings `b d` for a text.

        Of `prior_best_of` samples, the one most similar to the text embedding is taken (unCLIP, section 2.2, which
        draws two). Raises RequestError for a model that has no prior.
        """
        self.check_prior()
        k = request.prior_best_of
        text, negative = (TextEncoding(*(part.repeat_interleave(k, 0) for part in t)) for t in (text, negative))
        network = self.prior.network
        x = self.prior.run(
            network.condition(text),
            network.condition(negative),
            [generator for generator in noise for _ in range(k)],
            steps=request.prior_steps,
            sampler=request.prior_sampler,
            guidance=request.prior_guidance,
            progress=steps_of("prior", progress),
        )
        embed = network.unwhiten(x)  # b*k d
        likeness = F.cosine_similarity(embed, text.embed, dim=-1).unflatten(0, (-1, k))  # b k
        best = likeness.argmax(dim=1)
        return embed.unflatten(0, (-1, k))[torch.arange(len(best)), best]

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        """Prompts -> embedding `b d`, states `b n d`, mask `b n`. A prompt that is there twice is encoded once."""
        each = list(dict.fromkeys(prompts))
        encoding = self.clip.encode_tokens(self.tokenizer(each).to(self.device))
        rows = [each.index(prompt) for prompt in prompts]
        return TextEncoding(*(part[rows] for part in encoding))

    # ---- requests -> results

    def generate(
        self,
        prompt: str | Request | Iterable[str | Request],
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> list[Result]:
        """Draw prompts or Requests; `fields` are a Request's (n, seed, steps, ...) for prompts given as text.

        Requests that differ only in prompt and seed share micro-batches of `batch_size` images. Raises RequestError
        before anything is drawn.
        """
        return list(self.stream(prompt, batch_size=batch_size, progress=progress, **fields))

    def inpaint(self, image: Picture, mask: Picture | None = None, prompt: str = "", **fields: Any) -> list[Result]:
        """Repaint what a mask says of an image, of any size; what it keeps stays as it is, byte for byte.

        image, mask: files or PIL images; `fields` are a Request's. Without a mask, what is transparent is repainted;
        without a prompt, the image's own embedding guides. For several at once, give `generate` Requests.
        """
        return self.generate(Request(mode="inpaint", image=image, mask=mask, prompt=prompt, **fields))

    def outpaint(self, image: Picture, prompt: str = "", **fields: Any) -> list[Result]:
        """Paint on beyond the borders of an image: by `left`, `right`, `top`, `bottom` pixels, or to a `size`.

        `fields` are a Request's. The image itself stays as it is, byte for byte.
        """
        return self.generate(Request(mode="outpaint", image=image, prompt=prompt, **fields))

    def stream(
        self,
        prompt: str | Request | Iterable[str | Request],
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Iterator[Result]:
        """`generate`, but each Result is handed over once its micro-batch is drawn, and none is kept.

        Raises RequestError when it is called, not when the first Result is asked for.
        """
        given = [prompt] if isinstance(prompt, (str, Request)) else list(prompt)
        requests = [self.resolve(r if isinstance(r, Request) else Request(prompt=r, **fields)) for r in given]
        for request in requests:
            self.check_towers(request)
        if fields and any(isinstance(r, Request) for r in given):
            raise RequestError(f"{', '.join(fields)} cannot be given beside a Request: set them in the Request")
        batch_size = 16 if batch_size is None else batch_size
        if batch_size < 1:
            raise RequestError(f"batch_size must be at least 1, not {batch_size}")
        images = (one for request in requests for one in request.images())
        return self.results(micro_batches(images, batch_size), progress)

    def results(self, batches: Iterable[Sequence[Request]], progress: Progress | None = None) -> Iterator[Result]:
        """Draw batches, each as `draw` takes them, one after another."""
        for batch in batches:
            if batch[0].mode == "generate":
                pictures, scores, timings = self.draw(batch, progress)
                drawn = [(image, score, ()) for image, score in zip(to_images(pictures), scores, strict=True)]
            else:
                drawn, timings = edit(self, batch, progress)
            for request, (image, score, notes) in zip(batch, drawn, strict=True):
                yield Result(
                    image=image,
                    request=request,
                    seed=request.seed,
                    model=self.name,
                    revision=self.revision,
                    score=score,
                    timings={stage: seconds / len(batch) for stage, seconds in timings.items()},
                    notes=(*self.notes(request), *notes),
                )

    def resolve(self, request: Request) -> Request:
        """Fill a request's open fields with this model's defaults, and draw its seed if it has none.

        Raises RequestError for a size that the model does not make, or that a mask has and its image has not; DataError
        for a picture that cannot be read.
        """
        seed = secrets.randbelow(2**32) if request.seed is None else request.seed
        if request.mode != "generate":
            if any(width != height for width, height in self.sizes):
                raise RequestError(f"{self.name} does not draw squares, which {request.mode} is made of: use another")
            open_canvas(request)  # what is wrong with its pictures is to be said before any work is done
            defaults = {name: value for name, value in self.defaults().items() if name != "size"}  # the canvas says
            return request.resolved(**defaults, **self.edit_defaults(request), seed=seed)
        request = request.resolved(**self.defaults(), seed=seed)
        if request.size not in self.sizes:
            known = ", ".join(size_text(size) for size in self.sizes)
            raise RequestError(f"{self.name} does not make {size_text(request.size)} pictures; choose from {known}")
        return request

    def check_prior(self) -> None:
        """Raise RequestError if this model has no prior, and so no way from a text to an embedding."""
        if self.prior is None:
            raise RequestError(
                f"{self.name} has no prior, so that no prompt can guide it: "
                "give it a picture (Unclip.embed_image, then draw with embed=...), or use another model"
            )

    def check_towers(self, request: Request) -> None:
        """Raise RequestError for a resolved request that needs what this model has not: a prior, an image tower."""
        share = 0.0 if request.mode == "generate" else request.keep_style
        if share < 1:
            self.check_prior()
        if share > 0 and self.clip.visual is None:
            raise RequestError(
                f"{self.name} has no image tower to tell what a picture shows: give a prompt, and keep_style 0"
            )

    def defaults(self) -> dict[str, Any]:
        """What a request's fields are when they are left open."""
        return {
            "steps": self.decoder.steps,
            "prior_steps": None if self.prior is None else self.prior.steps,
            "upsampler_steps": self.upsamplers[-1].steps if self.upsamplers else 1,
            "guidance": self.decoder.guidance,
            "prior_guidance": None if self.prior is None else self.prior.guidance,
            "sampler": self.decoder.sampler,
            "prior_sampler": None if self.prior is None else self.prior.sampler,
            "size": self.sizes[-1],
            "prior_best_of": self.prior_best_of,
        }

    def edit_defaults(self, request: Request) -> dict[str, Any]:
        """What an edit's own fields are when they are left open."""
        return {
            # A decoder that was not trained with masks must be brought to heed what is known.
            "harmonize": 1 if self.decoder.network.knows_masks else 4,
            "keep_style": 0.0 if request.prompt.strip() else 1.0,
        }

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of what the decoder and each upsampler draw, smallest first."""
        return [picture_size(stage) for stage in (self.decoder, *self.upsamplers)]

    def picture_size(self, request: Request) -> tuple[int, int]:
        """(width, height) of what a request makes: of an edit, that of its canvas."""
        return self.resolve(request).size if request.mode == "generate" else open_canvas(request).size

    def notes(self, request: Request) -> Iterator[str]:
        """What the user should know of a request: what was cut off, and words the model has never seen."""
        for field, prompt in (("prompt", request.prompt), ("negative", request.negative)):
            if cut := self.tokenizer.cut(prompt):
                yield f"the {field} is longer than {self.tokenizer.context_length - 2} tokens; cut off: {cut!r}"
        unknown = unknown_words(request.prompt, self.vocabulary) if self.vocabulary else []
        if unknown:
            yield f"{self.name} does not know {', '.join(map(repr, unknown))}: see `unclip models show {self.name}`"

    @torch.inference_mode()
    def similarity(self, pictures: Tensor, text: Tensor) -> Tensor:
        """CLIP's cosine similarities `b` of pictures `b 3 h w` in [-1, 1] and embeddings `b d` of texts, in pairs."""
        return F.cosine_similarity(self.clip.encode_image(pictures), text)

    def score(self, images: Image.Image | Sequence[Image.Image], prompts: str | Sequence[str]) -> list[float]:
        """CLIP's cosine similarity of images and prompts, in pairs; one prompt may serve all images."""
        images = [images] if isinstance(images, Image.Image) else list(images)
        prompts = [prompts] * len(images) if isinstance(prompts, str) else list(prompts)
        if len(images) != len(prompts):
            raise RequestError(f"{len(images)} images and {len(prompts)} prompts: give one prompt an image, or one")
        if not images:
            return []
        return F.cosine_similarity(self.embed_image(images), self.encode_text(prompts).embed).tolist()

    @torch.inference_mode()
    def embed_image(self, images: Image.Image | Sequence[Image.Image]) -> Tensor:
        """CLIP's embeddings `b d` of images, each made a square as its tower was trained on them.

        Raises RequestError for a model without an image tower.
        """
        if self.clip.visual is None:
            raise RequestError(
                f"{self.name} has no image tower: it cannot tell what a picture shows; use another model"
            )
        images = [images] if isinstance(images, Image.Image) else list(images)
        side, crop = self.clip.config.image_size, self.clip.config.center_crop
        small = [to_square(image.convert("RGB"), side, crop) for image in images]
        return self.clip.encode_image(torch.stack([to_tensor(image) for image in small]).to(self.device))


def micro_batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Cut consecutive requests into batches of at most `size` that are alike in all but `OWN_FIELDS`."""
    batch, shared = [], None
    for request in requests:
        traits = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in OWN_FIELDS}
        if batch and (len(batch) == size or traits != shared):
            yield batch
            batch = []
        batch.append(request)
        shared = traits
    if batch:
        yield batch


def picture_size(stage: Stage) -> tuple[int, int]:
    """(width, height) of the pictures that a stage draws."""
    _, _, height, width = stage.codec.decode(torch.empty(1, *stage.shape, device="meta")).shape
    return width, height


def steps_of(stage: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)


@contextmanager
def timed(timings: dict[str, float], name: str, device: torch.device) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if device.type == "cuda":  # which answers before it has computed
        torch.cuda.synchronize(device)
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - start  # an edit passes a stage once a window
