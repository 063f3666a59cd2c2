"""One image job, validated once at the boundary, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.errors import RequestError, nearest
from unclip.requests.fields import (
    CANVAS_MODES,
    FILE_FIELDS,
    SIDE_PROMPTS,
    THETA,
    foreign_fields,
)
from unclip.requests.sources import source_kind
from unclip.requests.validation import check
from unclip.requests.values import show, size_text

if TYPE_CHECKING:
    from PIL import Image

    Source = str | Path | Image.Image


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to make. A field that is None takes the model's default; 0 is a value, not an absence.

    prompt            text; may be empty where something else guides: a picture, an embedding
    negative_prompt   text to steer away from ("" for none)
    mode              how the image comes about: one of MODES
    seed              0 .. 2**63-1; image i of the request has seed + i
    n                 number of images
    steps, prior_steps, upsampler_steps             denoising steps, 1 .. 1000
    guidance, prior_guidance                        classifier-free guidance scales, 0 .. 1000
    sampler, prior_sampler                          names from unclip.diffusion.names.SAMPLER_NAMES
    size              (width, height) in pixels; "64x64" and 64 are understood too; None: the model's largest;
                      of the canvas when outpainting; not given when inpainting
    prior_best_of     embeddings the prior draws, of which the one nearest to the text is used
    best_of           how many candidates are drawn, seed .. seed + best_of - 1, of which the n with the best CLIP score
                      are kept; rank: of one image, which of them it is, 0 for the best
    embedding         generate, inpaint, outpaint: a file of `unclip embed` that guides in the prior's place;
                      edit: what the picture is turned towards, in the prompt's place
    id                a name of the caller's for the job, carried through

    Edits (inpaint and outpaint):
    image             a file, or a PIL image, of any size
    resample         how often RePaint goes each stretch of the denoising, 1 .. 100; more joins new to old better
    keep_style        0 .. 1: how much of the image's own CLIP embedding guides the edit, and how little of the prompt's
    mask, mask_mode   inpaint: a file or a PIL image, and what in it is repainted: "white", "black", or "alpha", the
                      transparent. Without a mask, the image's own transparency
    feather           inpaint: pixels over which the repainted side fades into the kept one
    left, right, top, bottom                        outpaint: pixels to add; or a size and an
    anchor            where on the canvas the image goes: one of ANCHORS
    left_prompt, right_prompt, top_prompt, bottom_prompt    outpaint: prompts for what is beyond that side

    Modes that work on a picture's embedding (vary, interpolate, edit, reconstruct); the image is one file or PIL image,
    and a prompt is for the decoder's text, where it has any, except in "edit":
    fit               how a picture becomes a square: "crop" to its middle, or "pad" with the colour of its border
    strength          vary: 1 draws from new noise, 0 from the picture's own, between: part of the noise is drawn anew
    sources           interpolate: two or more pictures, prompts or files of `unclip embed`
    fraction, weights  interpolate: where between two, 0 .. 1; how much of each, for two or more
    same_noise        interpolate: all from the seed's noise, even pictures whose own noise could be found
    theta             edit: how far the embedding turns towards the prompt, 0 .. 1; of the way to an `embedding`
    from_prompt       edit: what the picture shows, from which the prompt differs; "" for nothing in particular
    components        reconstruct: how many principal components of the embedding are kept; several: an image of each
    frames            interpolate, edit: so many images of a sequence from one end to the other, with one seed

    Raises RequestError, which names the field, the value and the fix.
    """

    prompt: str = ""
    negative_prompt: str = ""
    mode: str = "generate"
    seed: int | None = None
    n: int = 1
    steps: int | None = None
    prior_steps: int | None = None
    upsampler_steps: int | None = None
    guidance: float | None = None
    prior_guidance: float | None = None
    sampler: str | None = None
    prior_sampler: str | None = None
    size: tuple[int, int] | None = None
    prior_best_of: int | None = None
    id: str | None = None
    image: str | Path | Image.Image | None = None
    mask: str | Path | Image.Image | None = None
    mask_mode: str | None = None
    feather: int | None = None
    resample: int | None = None
    keep_style: float | None = None
    left: int | None = None
    right: int | None = None
    top: int | None = None
    bottom: int | None = None
    anchor: str | None = None
    left_prompt: str | None = None
    right_prompt: str | None = None
    top_prompt: str | None = None
    bottom_prompt: str | None = None
    best_of: int | None = None
    embedding: str | Path | None = None
    fit: str | None = None
    strength: float | None = None
    sources: tuple[Source, ...] | None = None
    fraction: float | None = None
    weights: tuple[float, ...] | None = None
    same_noise: bool | None = None
    theta: float | None = None
    from_prompt: str | None = None
    components: tuple[int, ...] | None = None
    frames: int | None = None

    def __post_init__(self) -> None:
        check(self)

    def resolved(self, **defaults: Any) -> Request:
        """This request with its None fields filled from `defaults`; fields that are set stay as they are."""
        _check_keys(defaults)
        return dataclasses.replace(
            self, **{name: value for name, value in defaults.items() if getattr(self, name) is None}
        )

    @property
    def prompts(self) -> list[str]:
        """What it says is to be drawn: its prompt, and those of an outpainting's sides, where there are any."""
        prompts = [self.prompt, *(getattr(self, name) or "" for name in SIDE_PROMPTS)]
        return [prompt for prompt in prompts if prompt.strip()]

    @property
    def edits_canvas(self) -> bool:
        """Whether it edits an image of any size and preserves the known pixels: inpainting and outpainting."""
        return self.mode in CANVAS_MODES

    @property
    def outpaints(self) -> bool:
        """Whether it generates margins around an image."""
        return self.mode == "outpaint"

    @property
    def needs_square(self) -> bool:
        """Whether it works on square images only: all modes but text to image."""
        return self.mode != "generate"

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @property
    def inverts(self) -> bool:
        """Whether it starts from the noise of a picture, which is found first, and not from new noise."""
        if self.mode == "vary":
            return self.strength is not None and self.strength < 1
        if self.mode == "interpolate":
            return not self.same_noise and any(source_kind(source) == "image" for source in self.sources)
        return self.mode == "edit" or (self.mode == "reconstruct" and self.components is None)

    @property
    def count(self) -> int:
        """How many images it asks for."""
        return self.n * len(self._frames())

    def images(self) -> Iterator[Request]:
        """One request an image, made as it is asked for: n = 1 and seed + i, in a sequence the same seed for all.

        With best_of the seed is the first candidate's, and the image's rank says which one it is. The seed must be set.
        """
        if self.seed is None:
            raise RequestError("seed is not set; draw one before the request is split into images")
        if self.best_of is not None:
            return (dataclasses.replace(self, n=1) for _ in range(self.n))
        return (
            dataclasses.replace(self, n=1, seed=self.seed + i, **frame)
            for i in range(self.n)
            for frame in self._frames()
        )

    def candidates(self) -> list[Request]:
        """Of one image with best_of: the requests among which it is chosen."""
        plain = dataclasses.replace(self, n=1, best_of=None)
        return [dataclasses.replace(plain, seed=self.seed + i) for i in range(self.best_of)]

    def _frames(self) -> list[dict[str, Any]]:
        """What differs between the images of a sequence; of any other request, one without a difference."""
        if self.frames is not None:
            name, end = (
                ("theta", THETA if self.theta is None else self.theta) if self.mode == "edit" else ("fraction", 1.0)
            )
            return [{"frames": None, name: end * i / (self.frames - 1)} for i in range(self.frames)]
        return [{"components": (count,)} for count in self.components] if self.components else [{}]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; the size as "WxH". `from_dict` gives the same request back.

        Fields that the mode does not have are left out. A picture that is not a file is told by its size only, which
        no request can be made from.
        """
        foreign = foreign_fields(self.mode)
        names = [field.name for field in dataclasses.fields(self) if field.name not in foreign]
        fields = {name: getattr(self, name) for name in names}
        for name in FILE_FIELDS:
            if fields.get(name) is not None:
                fields[name] = _told(fields[name])
        if self.sources is not None:
            fields["sources"] = [_told(source) for source in self.sources]
        fields |= {name: list(fields[name]) for name in ("weights", "components") if fields.get(name) is not None}
        return {**fields, "size": None if self.size is None else size_text(self.size)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Request:
        """A request from JSON values. Raises RequestError for an unknown key, naming the nearest."""
        if not isinstance(fields, dict):
            raise RequestError(f"a request is an object with the key 'prompt', not {show(fields)}")
        _check_keys(fields)
        return cls(**fields)


def _told(source: Source) -> str:
    """A source as text; a picture that is not a file by its size."""
    return source if isinstance(source, str) else f"<a picture of {size_text(source.size)}>"


def _check_keys(fields: dict[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(Request)]
    for key in fields:
        if key not in known:
            near = nearest(key, known)
            fix = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
            raise RequestError(f"{show(key)} is not a field of a request; {fix}")
