"""Requests -> Results: what people call. How a picture is drawn: see `pipeline.py`, `editing.py`, `latents.py`."""

import dataclasses
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.errors import RequestError
from unclip.images.processing import to_images
from unclip.images.result import Result
from unclip.inference.callbacks import Progress
from unclip.modes.bipartite import draw_latents, open_ends
from unclip.modes.inpainting.inpaint import edit
from unclip.modes.inpainting.plan import is_told_what_is_new, shares_of_style
from unclip.modes.inpainting.prepare import open_canvas
from unclip.requests.fields import CANVAS_MODES, FIELDS_OF, PRIOR_FIELDS, SIDE_PROMPTS, THETA, foreign_fields
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.values import size_text
from unclip.requests.vocabulary import nearest_words, unknown_words

Picture = str | Path | Image.Image
Source = Picture
"""Of an interpolation: a picture, a prompt, or a file of `unclip embed`."""

Rankings = list[tuple[list[Request], list[Result]]]
"""Candidates, and what was drawn of them, the best first."""

SHARED = {"resample", "strength", *PRIOR_FIELDS}
OWN_FIELDS = {"prompt", "negative_prompt", "seed", "id", "rank", *chain.from_iterable(FIELDS_OF.values())} - SHARED
"""Fields in which the images of one micro-batch may differ."""
BATCH = 16
INVERSION_STEPS = 25
"""Denoising steps where a picture's own noise is found, unless a request says other."""


class Front:
    """The methods of a pipeline that take Requests, or what they are made of."""

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

    def vary(self, image: Picture, prompt: str = "", **fields: Any) -> list[Result]:
        """Other pictures of what an image shows, from its CLIP embedding; `strength` 0 .. 1 says how far they may go.

        Here and below, `prompt` is what the decoder reads beside the embedding, and `fields` are a Request's.
        """
        return self.generate(Request(mode="vary", image=image, prompt=prompt, **fields))

    def interpolate(
        self, a: Source, b: Source, prompt: str = "", frames: int | None = 9, **fields: Any
    ) -> list[Result]:
        """Pictures on the way between two, each a picture, a prompt or a file of `unclip embed`, in one sequence.

        Pictures are met at the ends, unless `same_noise`. With `frames` None, the one at `share`.
        """
        return self.generate(Request(mode="interpolate", sources=(a, b), prompt=prompt, frames=frames, **fields))

    def mix(self, sources: Sequence[Source], weights: Sequence[float], prompt: str = "", **fields: Any) -> list[Result]:
        """A picture of two or more sources together, as `interpolate` takes them, by the weight of each."""
        mixed = Request(mode="interpolate", sources=tuple(sources), weights=tuple(weights), prompt=prompt, **fields)
        return self.generate(mixed)

    def edit(self, image: Picture, prompt: str = "", from_prompt: str = "", **fields: Any) -> list[Result]:
        """A picture turned by `theta` from what `from_prompt` says towards a prompt; with `frames`, a sequence.

        With `embedding`, a file of `save_embedding`, from its own embedding to that one, which theta 1 reaches.
        """
        return self.generate(Request(mode="edit", image=image, prompt=prompt, from_prompt=from_prompt, **fields))

    def reconstruct(self, image: Picture, prompt: str = "", **fields: Any) -> list[Result]:
        """A picture from its embedding and its own noise; or with `components`, from so many of its embedding's."""
        return self.generate(Request(mode="reconstruct", image=image, prompt=prompt, **fields))

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
        batch_size = BATCH if batch_size is None else batch_size
        if batch_size < 1:
            raise RequestError(f"batch_size must be at least 1, not {batch_size}")
        images = (one for request in requests for one in request.images())
        return self.results(micro_batches(images, batch_size), progress, batch_size)

    def results(
        self,
        batches: Iterable[Sequence[Request]],
        progress: Progress | None = None,
        batch_size: int = BATCH,
        known: Rankings | None = None,
    ) -> Iterator[Result]:
        """Draw batches, each as `draw` takes them, one after another; candidates for one, `batch_size` at a time.

        known: a list of the caller's, by which the next call finds the last candidates of this one.
        """
        known = [] if known is None else known
        for batch in batches:
            if batch[0].best_of is not None:
                yield from self.ranked(batch, progress, batch_size, known)
                continue
            if batch[0].mode == "generate":
                pictures, scores, timings = self.draw(batch, progress)
                drawn = [(image, score, ()) for image, score in zip(to_images(pictures), scores, strict=True)]
            else:
                drawn, timings = (edit if batch[0].mode in CANVAS_MODES else draw_latents)(self, batch, progress)
            for request, (image, score, notes) in zip(batch, drawn, strict=True):
                yield Result(
                    image=image,
                    request=request,
                    seed=request.seed,
                    model=self.name,
                    revision=self.revision,
                    image_encoder=self.image_encoder,
                    score=score,
                    timings={stage: seconds / len(batch) for stage, seconds in timings.items()},
                    notes=(*self.notes(request), *notes),
                    dtype=self.dtype,
                )

    def ranked(
        self,
        batch: Sequence[Request],
        progress: Progress | None,
        batch_size: int,
        known: Rankings,
    ) -> Iterator[Result]:
        """For each image the one of its rank among its candidates, by score; equals in the order of their seeds.

        The Result's request is the candidate's own, which draws it again without the others. known: candidates and what
        was drawn of them, for the images of one request have the same ones, and may be cut into several batches.
        """
        candidates = [request.candidates() for request in batch]
        kept = len(known)
        for request, own in zip(batch, candidates, strict=True):
            row = next((row for row, (requests, _) in enumerate(known) if requests == own), len(known))
            if row == len(known):
                drawn = list(self.results(micro_batches(own, batch_size), progress))
                known.append((own, sorted(drawn, key=lambda result: -result.score)))
            ranking = known[row][1]
            chosen, among = ranking[request.rank], candidates.count(own)
            # The images of a batch share the time of their candidates; those of a later one take none.
            spent = {
                name: 0.0 if row < kept else sum(result.timings[name] for result in ranking) / among
                for name in chosen.timings
            }
            yield dataclasses.replace(chosen, ranked=tuple(result.score for result in ranking), timings=spent)
        del known[:-1]

    def resolve(self, request: Request) -> Request:
        """Fill a request's open fields with this model's defaults, and draw its seed if it has none.

        Raises RequestError for a size that the model does not make, or that a mask has and its image has not; DataError
        for a picture or an embedding that cannot be read.
        """
        seed = secrets.randbelow(2**32) if request.seed is None else request.seed
        if request.mode != "generate" and any(width != height for width, height in self.sizes):
            raise RequestError(f"{self.name} does not draw squares, which {request.mode} is made of: use another")
        if request.embedding is not None:
            self.read_embedding(request.embedding)  # what is wrong with a file is to be said before any work is done
        foreign = foreign_fields(request.mode)
        defaults = {name: value for name, value in self.defaults(request).items() if name not in foreign}
        if request.mode in CANVAS_MODES:
            open_canvas(request)
            return request.resolved(**defaults, seed=seed)
        open_ends(self, request)
        request = request.resolved(**defaults, seed=seed)
        if request.size not in self.sizes:
            known = ", ".join(size_text(size) for size in self.sizes)
            raise RequestError(f"{self.name} does not make {size_text(request.size)} pictures; choose from {known}")
        return request

    def check_prior(self) -> None:
        """Raise RequestError if this model has no prior, and so no way from a text to an embedding."""
        if self.prior is None:
            raise RequestError(
                f"{self.name} has no prior, so that no prompt can guide it: "
                "give it a picture (unclip vary, or Unclip.vary) or an embedding (--embedding), or use another model"
            )

    def check_towers(self, request: Request) -> None:
        """Raise RequestError for a resolved request that needs what this model has not: a prior, an image tower."""
        if request.mode == "interpolate":
            kinds = {source_kind(source) for source in request.sources}
            imagines, looks = "prompt" in kinds, "picture" in kinds
        elif request.mode == "generate" or request.mode in CANVAS_MODES:
            shares = [0.0] if request.mode == "generate" else shares_of_style(self, request)
            imagines, looks = min(shares, default=1) < 1 and request.embedding is None, any(shares)
        else:
            imagines, looks = False, True
        if imagines:
            self.check_prior()
        if looks or request.best_of is not None:
            self.check_image_tower("give a prompt, and keep_style 0, or " if request.keep_style else "")

    def defaults(self, request: Request | None = None) -> dict[str, Any]:
        """What a request's fields are when they are left open; without one, those of plain generation."""
        found = {
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
        if request is None or request.mode == "generate":
            return found
        if request.mode in CANVAS_MODES:
            del found["size"]  # the canvas says
            # A decoder that was not trained with masks must be brought to heed what is known.
            resample = 1 if self.decoder.network.knows_masks else 4
            found["resample"] = resample
            if request.prompts or request.embedding is not None:
                found["keep_style"] = 0.0
            elif not is_told_what_is_new(self, request):
                found["keep_style"] = 1.0
            return found
        if request.inverts:
            # Guidance leads away from what was inverted without: none for a reconstruction, all for new noise.
            share = request.strength or 0.0
            guidance = 1 + share * (self.decoder.guidance - 1)
            found |= {"steps": INVERSION_STEPS, "sampler": "ddim", "guidance": guidance}
        own = {"fit": "crop", "strength": 1.0, "theta": None if request.frames else THETA, "from_prompt": ""}
        if request.mode == "interpolate" and request.weights is None and request.frames is None:
            own["fraction"] = 0.5
        return {**found, **own}

    def picture_size(self, request: Request) -> tuple[int, int]:
        """(width, height) of what a request makes: of an edit, that of its canvas."""
        return open_canvas(request).size if request.mode in CANVAS_MODES else self.resolve(request).size

    def notes(self, request: Request) -> Iterator[str]:
        """What the user should know of a request: what was cut off, and words the model has never seen."""
        ends = [("source", source) for source in request.sources or () if source_kind(source) == "prompt"]
        named = [(name, getattr(request, name) or "") for name in (*SIDE_PROMPTS, "from_prompt")]
        shown = [("prompt", request.prompt), *named, *ends]
        for field, prompt in (*shown, ("negative_prompt", request.negative_prompt)):
            if cut := self.tokenizer.cut(prompt):
                yield f"the {field} is longer than {self.tokenizer.context_length - 2} tokens; cut off: {cut!r}"
        said = " ".join(prompt for _, prompt in shown)
        unknown = unknown_words(said, self.vocabulary) if self.vocabulary else []
        if unknown:
            told = ", ".join(with_nearest(word, self.vocabulary) for word in unknown)
            yield f"{self.name} does not know {told}: see `unclip models show {self.name} --vocabulary`"


def with_nearest(word: str, known: frozenset[str]) -> str:
    """An unknown word, as a note names it, and the known ones that it may have been meant to be."""
    nearest = " or ".join(map(repr, nearest_words(word, known)))
    return f"{word!r} (nearest: {nearest})" if nearest else repr(word)


def micro_batches(requests: Iterable[Request], size: int) -> Iterator[list[Request]]:
    """Cut consecutive requests into batches of at most `size` that are alike in all but `OWN_FIELDS`."""
    batch, shared = [], None
    for request in requests:
        names = (f.name for f in dataclasses.fields(request) if f.name not in OWN_FIELDS)
        traits = {"inverts": request.inverts, **{name: getattr(request, name) for name in names}}
        if batch and (len(batch) == size or traits != shared):
            yield batch
            batch = []
        batch.append(request)
        shared = traits
    if batch:
        yield batch
