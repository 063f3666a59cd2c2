"""One image job, validated once at the boundary, and what came of it."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.diffusion.names import check_sampler
from unclip.errors import RequestError, nearest

if TYPE_CHECKING:
    from PIL import Image

MODES = ("generate", "inpaint", "outpaint")
MASK_MODES = ("white", "black", "alpha")
ANCHORS = ("center", "left", "right", "top", "bottom", "top-left", "top-right", "bottom-left", "bottom-right")
SIDES = ("left", "right", "top", "bottom")
SIDE_PROMPTS = tuple(f"{side}_prompt" for side in SIDES)
EDIT_FIELDS = ("image", "harmonize", "keep_style")
FIELDS_OF = {  # those that only some modes have
    "generate": (),
    "inpaint": (*EDIT_FIELDS, "mask", "mask_mode", "feather"),
    "outpaint": (*EDIT_FIELDS, *SIDES, *SIDE_PROMPTS, "anchor"),
}
FILE_FIELDS = ("image", "mask")
MAX_SEED = 2**63 - 1
MAX_STEPS = 1000  # the length of the training schedule
MAX_GUIDANCE = 1000
MAX_IMAGES = 100_000
MAX_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to make. A field that is None takes the model's default; 0 is a value, not an absence.

    prompt            text; empty only in an edit, which then takes its style from the picture
    negative          text to steer away from ("" for none)
    mode              how the image comes about: one of MODES
    seed              0 .. 2**63-1; image i of the request has seed + i
    n                 number of images
    steps, prior_steps, upsampler_steps             denoising steps, 1 .. 1000
    guidance, prior_guidance                        classifier-free guidance scales, 0 .. 1000
    sampler, prior_sampler                          names from unclip.diffusion.names.SAMPLER_NAMES
    size              (width, height) in pixels; "64x64" and 64 are understood too; None: the model's largest;
                      of the canvas when outpainting; not given when inpainting
    prior_best_of     embeddings the prior draws, of which the one nearest to the text is used
    id                a name of the caller's for the job, carried through

    Edits (inpaint and outpaint):
    image             a file, or a PIL image, of any size
    harmonize         how often RePaint goes each stretch of the denoising, 1 .. 100; more joins new to old better
    keep_style        0 .. 1: how much of the image's own CLIP embedding guides the edit, and how little of the prompt's
    mask, mask_mode   inpaint: a file or a PIL image, and what in it is repainted: "white", "black", or "alpha", the
                      transparent. Without a mask, the image's own transparency
    feather           inpaint: pixels over which the repainted side fades into the kept one
    left, right, top, bottom                        outpaint: pixels to add; or a size and an
    anchor            where on the canvas the image goes: one of ANCHORS
    left_prompt, right_prompt, top_prompt, bottom_prompt    outpaint: prompts for what is beyond that side

    Raises RequestError, which names the field, the value and the fix.
    """

    prompt: str = ""
    negative: str = ""
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
    harmonize: int | None = None
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

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        _check_text("negative", self.negative)
        if self.id is not None:
            _check_text("id", self.id)
        _check_choice("mode", self.mode, MODES)
        self._check_edit()
        if self.mode == "generate" and not self.prompt.strip():
            raise RequestError("prompt is empty; say what the image should show")
        self._normalise("n", _integer("n", self.n, 1, MAX_IMAGES))
        if self.seed is not None:
            self._normalise("seed", _integer("seed", self.seed, 0, MAX_SEED))
            if self.seed + self.n - 1 > MAX_SEED:
                raise RequestError(
                    f"seed {self.seed} is too large for n = {self.n}: image i has seed + i, "
                    f"at most {MAX_SEED}; use a seed up to {MAX_SEED - self.n + 1}"
                )
        for name in ("steps", "prior_steps", "upsampler_steps"):
            if getattr(self, name) is not None:
                self._normalise(name, _integer(name, getattr(self, name), 1, MAX_STEPS))
        if self.prior_best_of is not None:
            self._normalise("prior_best_of", _integer("prior_best_of", self.prior_best_of, 1, 1024))
        for name in ("guidance", "prior_guidance"):
            if getattr(self, name) is not None:
                self._normalise(name, _number(name, getattr(self, name), MAX_GUIDANCE))
        for name in ("sampler", "prior_sampler"):
            if getattr(self, name) is not None:
                check_sampler(getattr(self, name), name)
        if self.size is not None:
            self._normalise("size", parse_size(self.size))

    def _check_edit(self) -> None:
        """The fields that only edits have, and the size of an outpainting."""
        for name in {name for names in FIELDS_OF.values() for name in names} - set(FIELDS_OF[self.mode]):
            if getattr(self, name) is not None:
                modes = " and ".join(mode for mode, names in FIELDS_OF.items() if name in names)
                raise RequestError(
                    f"{name} is a field of {modes}, and this request's mode is {self.mode}: leave it out"
                )
        for name in FILE_FIELDS:
            value = getattr(self, name)
            if isinstance(value, (str, Path)):
                _check_text(name, str(value))
                self._normalise(name, str(value))
            elif value is not None and not hasattr(value, "getexif"):
                raise RequestError(f"{name} must be the path of a picture, or a PIL image, not {_show(value)}")
        for name, low, high in [("feather", 0, 1024), ("harmonize", 1, 100), *((side, 0, MAX_SIDE) for side in SIDES)]:
            if getattr(self, name) is not None:
                self._normalise(name, _integer(name, getattr(self, name), low, high))
        for name in SIDE_PROMPTS:
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        for name, choices in (("mask_mode", MASK_MODES), ("anchor", ANCHORS)):
            if getattr(self, name) is not None:
                _check_choice(name, getattr(self, name), choices)
        if self.keep_style is not None:
            self._normalise("keep_style", _number("keep_style", self.keep_style, 1))
        if self.mode != "generate" and self.image is None:
            raise RequestError(f"image is missing; name the picture to {self.mode}")
        said = any((getattr(self, name) or "").strip() for name in ("prompt", *SIDE_PROMPTS))
        if self.keep_style is not None and self.keep_style < 1 and not said:
            raise RequestError(
                "keep_style below 1 mixes the image's style with a prompt's: give a prompt, or leave it out"
            )
        if self.mode == "inpaint" and self.size is not None:
            raise RequestError("size is not for inpainting, whose result is as large as the image: leave it out")
        if self.mode == "outpaint":
            margins = any(getattr(self, side) for side in SIDES)
            if margins == (self.size is not None):
                raise RequestError("say how far to outpaint: by left, right, top or bottom, or else by a size")
            if self.anchor is not None and self.size is None:
                raise RequestError("anchor goes with a size; left, right, top and bottom say themselves where to add")

    def _normalise(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def resolved(self, **defaults: Any) -> Request:
        """This request with its None fields filled from `defaults`; fields that are set stay as they are."""
        _check_keys(defaults)
        return dataclasses.replace(
            self, **{name: value for name, value in defaults.items() if getattr(self, name) is None}
        )

    def images(self) -> Iterator[Request]:
        """One request an image, made as it is asked for: n = 1 and seed + i. The seed must be set."""
        if self.seed is None:
            raise RequestError("seed is not set; draw one before the request is split into images")
        return (dataclasses.replace(self, n=1, seed=self.seed + i) for i in range(self.n))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; the size as "WxH". `from_dict` gives the same request back.

        Fields that the mode does not have are left out. A picture that is not a file is told by its size only, which
        no request can be made from.
        """
        foreign = {name for names in FIELDS_OF.values() for name in names} - set(FIELDS_OF[self.mode])
        names = [field.name for field in dataclasses.fields(self) if field.name not in foreign]
        fields = {name: getattr(self, name) for name in names}
        for name in FILE_FIELDS:
            if fields.get(name) is not None and not isinstance(fields[name], str):
                fields[name] = f"<a picture of {size_text(fields[name].size)}>"
        return {**fields, "size": None if self.size is None else size_text(self.size)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Request:
        """A request from JSON values. Raises RequestError for an unknown key, naming the nearest."""
        if not isinstance(fields, dict):
            raise RequestError(f"a request is an object with the key 'prompt', not {_show(fields)}")
        _check_keys(fields)
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished image and what made it.

    image     PIL image, RGB
    request   the request of this image alone: n = 1, its own seed, every default filled in
    seed      the seed of this image
    model     name of the model
    revision  the commit of a model from the hub, or None
    score     CLIP similarity of image and prompt, or None where it was not measured
    timings   seconds by stage
    notes     what the user should know, e.g. that the prompt was cut
    """

    image: Image.Image
    request: Request
    seed: int
    model: str
    revision: str | None = None
    score: float | None = None
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_bytes(self, format: str = "png") -> bytes:
        """The bytes of a "png", "jpg" or "webp" file, with a record of what made the image (see unclip.metadata)."""
        from unclip import metadata

        return metadata.image_bytes(self.image, metadata.record(self), format)

    def save(self, path: str | Path) -> Path:
        """Write the image and its record to `path`, replacing what is there in one step.

        The suffix says the format: .png, .jpg, .jpeg, .webp; anything else is written as PNG.
        """
        from unclip import metadata
        from unclip.files import write_atomic

        suffix = Path(path).suffix.lower().removeprefix(".")
        return write_atomic(path, self.to_bytes(suffix if suffix in metadata.FORMATS else "png"))


def parse_size(value: str | int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """(width, height) in pixels from "64x48", "64", 64, or a pair. Raises RequestError."""
    sides: Any = value
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?\s*", value, re.ASCII)
        sides = (int(match[1]), int(match[2] or match[1])) if match else None
    elif isinstance(value, int) and not isinstance(value, bool):
        sides = (value, value)
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise RequestError(f"size must be WIDTHxHEIGHT in pixels, such as 64x64, not {_show(value)}")
    return _integer("size", sides[0], 1, MAX_SIDE), _integer("size", sides[1], 1, MAX_SIDE)


def size_text(size: tuple[int, int]) -> str:
    """(64, 48) -> "64x48"."""
    return f"{size[0]}x{size[1]}"


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, not {_show(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{name} {_show(value)} is not valid Unicode; give it as UTF-8") from None


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError(f"{name} {_show(value)} is unknown; choose from {', '.join(choices)}")


def _integer(name: str, value: Any, low: int, high: int) -> int:
    number = None
    if not isinstance(value, bool):  # True is an int to Python, never to a user
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    if number is None or not low <= number <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {_show(value)}")
    return number


def _number(name: str, value: Any, high: float) -> float:
    number = math.nan
    if not isinstance(value, (bool, str, bytes)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not 0 <= number <= high:  # nor NaN
        raise RequestError(f"{name} must be a number from 0 to {high}, not {_show(value)}")
    return number


def _check_keys(fields: dict[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(Request)]
    for key in fields:
        if key not in known:
            near = nearest(key, known)
            fix = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}"
            raise RequestError(f"{_show(key)} is not a field of a request; {fix}")


def _show(value: Any) -> str:
    """A value for an error message: one line, not too long, printable everywhere."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        text = f"this {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."
