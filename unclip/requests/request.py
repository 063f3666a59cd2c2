"""Request: one job, validated once as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from unclip.diffusion.sampler_names import check_sampler
from unclip.errors import RequestError
from unclip.requests import fields as f
from unclip.requests import validation, values


def checked(check: Callable[[str, Any], Any]) -> BeforeValidator:
    """Validate a field by `check(name, value)`, which returns the value in its final form. None stays None."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        return None if value is None else check(str(info.field_name), value)

    return BeforeValidator(validate)


def whole(low: int, high: int) -> BeforeValidator:
    """A whole number from low to high."""
    return checked(lambda name, value: values.integer(name, value, low, high))


def up_to(high: float) -> BeforeValidator:
    """A number from 0 to high."""
    return checked(lambda name, value: values.number(name, value, high))


def one_of(choices: tuple[str, ...]) -> BeforeValidator:
    """One of the choices."""
    return checked(lambda name, value: values.choice(name, value, choices))


def required_text(value: Any, info: ValidationInfo) -> str:
    """Text, and not None."""
    return values.text(str(info.field_name), value)


Prompt = Annotated[str, BeforeValidator(required_text)]
OptionalText = Annotated[str | None, checked(values.text)]
Steps = Annotated[int | None, whole(1, f.MAX_STEPS)]
Guidance = Annotated[float | None, up_to(f.MAX_GUIDANCE)]
Sampler = Annotated[str | None, checked(lambda name, value: check_sampler(value, name))]
Fraction = Annotated[float | None, up_to(1)]
Pixels = Annotated[int | None, whole(0, f.MAX_SIDE)]
Source = Annotated[Any, checked(values.source)]
Size = Annotated[tuple[int, int] | None, checked(lambda _, value: values.parse_size(value))]
Weights = Annotated[
    tuple[float, ...] | None,
    checked(lambda name, value: values.numbers(name, value, lambda n, v: values.number(n, v, 1e6))),
]
Counts = Annotated[
    tuple[int, ...] | None,
    checked(lambda name, value: values.numbers(name, value, lambda n, v: values.integer(n, v, 1, 65536))),
]


class Request(BaseModel):
    """A request for images. A field that is None takes the model's default; 0 is a value.

    Raises RequestError, whose message names the field, the value and the fix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompt: Prompt = Field("", description="text; may be empty where an image or an embedding guides")
    negative_prompt: Prompt = Field("", description="text that guidance steers away from")
    mode: Annotated[str, one_of(f.MODES)] = Field("generate", description=f"one of {', '.join(f.MODES)}")
    seed: Annotated[int | None, whole(0, f.MAX_SEED)] = Field(None, description="image i of the request has seed + i")
    n: Annotated[int, whole(1, f.MAX_IMAGES)] = Field(1, description="number of images")
    steps: Steps = Field(None, description="denoising steps of the decoder, 1 .. 1000")
    prior_steps: Steps = Field(None, description="denoising steps of the prior, 1 .. 1000")
    upsampler_steps: Steps = Field(None, description="denoising steps of each upsampler, 1 .. 1000")
    guidance: Guidance = Field(None, description="classifier-free guidance scale of the decoder, 0 .. 1000")
    prior_guidance: Guidance = Field(None, description="classifier-free guidance scale of the prior, 0 .. 1000")
    sampler: Sampler = Field(None, description="sampler of the decoder")
    prior_sampler: Sampler = Field(None, description="sampler of the prior")
    size: Size = Field(
        None,
        description='(width, height) in pixels, or "64x64", or 64; when outpainting, of the whole canvas; not for '
        "inpainting. Default: the model's largest",
    )
    prior_best_of: Annotated[int | None, whole(1, f.MAX_CANDIDATES)] = Field(
        None, description="embeddings that the prior samples; the one closest to the text is used"
    )
    id: OptionalText = Field(None, description="the caller's name for the job, passed through")
    image: Source = Field(None, description="the image to edit or to start from: a file or a PIL image of any size")
    mask: Source = Field(
        None, description="inpaint: the mask, a file or a PIL image of the image's size. Default: its transparency"
    )
    mask_mode: Annotated[str | None, one_of(f.MASK_MODES)] = Field(
        None, description="inpaint: the pixels of the mask that are repainted: white (default), black or alpha"
    )
    feather: Annotated[int | None, whole(0, 1024)] = Field(
        None, description="inpaint: pixels over which the repainted side fades into the kept one"
    )
    resample: Annotated[int | None, whole(1, 100)] = Field(
        None, description="inpaint, outpaint: RePaint passes per stretch of steps, 1 .. 100; more blend better"
    )
    keep_style: Fraction = Field(
        None, description="inpaint, outpaint: weight of the image's own embedding against the prompt's, 0 .. 1"
    )
    left: Pixels = Field(None, description="outpaint: pixels to add on the left")
    right: Pixels = Field(None, description="outpaint: pixels to add on the right")
    top: Pixels = Field(None, description="outpaint: pixels to add at the top")
    bottom: Pixels = Field(None, description="outpaint: pixels to add at the bottom")
    anchor: Annotated[str | None, one_of(f.ANCHORS)] = Field(
        None, description="outpaint, with size: where on the canvas the image is placed"
    )
    left_prompt: OptionalText = Field(None, description="outpaint: prompt for the left side")
    right_prompt: OptionalText = Field(None, description="outpaint: prompt for the right side")
    top_prompt: OptionalText = Field(None, description="outpaint: prompt for the top")
    bottom_prompt: OptionalText = Field(None, description="outpaint: prompt for the bottom")
    best_of: Annotated[int | None, whole(1, f.MAX_CANDIDATES)] = Field(
        None, description="candidates, with seeds seed .. seed + best_of - 1; the n with the best CLIP scores are kept"
    )
    embedding: Source = Field(
        None,
        description="a file of `unclip embed`, used in place of the prior's embedding; for edit: the target",
    )
    fit: Annotated[str | None, one_of(f.FITS)] = Field(
        None, description="how an image becomes square: crop to its middle, or pad with the colour of its border"
    )
    strength: Fraction = Field(
        None, description="vary: 1 starts from new noise, 0 from the image's own; between, a part of it is renewed"
    )
    sources: Annotated[tuple[Any, ...] | None, checked(values.sources)] = Field(
        None, description="interpolate: two or more images, prompts or files of `unclip embed`"
    )
    fraction: Fraction = Field(None, description="interpolate: position between two sources, 0 .. 1")
    weights: Weights = Field(None, description="interpolate: the weight of each source")
    same_noise: Annotated[bool | None, checked(values.truth)] = Field(
        None, description="interpolate: use the seed's noise for all images, not the images' own"
    )
    theta: Fraction = Field(
        None, description="edit: how far the embedding is rotated towards the prompt or the embedding, 0 .. 1"
    )
    from_prompt: OptionalText = Field(None, description="edit: what the image shows, from which the prompt differs")
    components: Counts = Field(
        None, description="reconstruct: principal components of the embedding that are kept; one image for each number"
    )
    frames: Annotated[int | None, whole(2, f.MAX_FRAMES)] = Field(
        None, description="interpolate, edit: images of a sequence from one end to the other, with one seed"
    )

    def __init__(self, /, **fields: Any) -> None:  # "/": a mapping from a file may have any key
        fields = validation.rename_old_fields(fields)
        validation.check_names(fields, self.field_names())
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise request_error(error) from None

    @model_validator(mode="after")
    def _check_together(self) -> Request:
        validation.check_fields(self.__dict__)
        return self

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The names of all fields."""
        return tuple(cls.model_fields)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Request:
        """A request from JSON values, as `to_dict` gives them. Raises RequestError for an unknown field."""
        if not isinstance(fields, dict):
            raise RequestError(f"a request is an object with the key 'prompt', not {values.show(fields)}")
        # Records of earlier versions have a field `rank`, which is always null there.
        return cls(**{name: value for name, value in fields.items() if name != "rank" or value is not None})

    @classmethod
    def check_value(cls, name: str, value: Any) -> None:
        """Raise RequestError for a value that this field cannot have, whatever the other fields are."""
        try:
            BaseModel.__init__(cls.__new__(cls), **{name: value})
        except ValidationError as error:
            if error.errors(include_url=False)[0]["loc"]:  # otherwise only the fields do not fit each other
                raise request_error(error) from None

    def replace(self, /, **changes: Any) -> Request:
        """The same request with some fields changed, validated again."""
        return type(self)(**self.__dict__ | validation.rename_old_fields(changes))

    def resolved(self, /, **defaults: Any) -> Request:
        """The same request with its None fields filled from `defaults`."""
        validation.check_names(defaults, self.field_names())
        return self.replace(**{name: value for name, value in defaults.items() if getattr(self, name) is None})

    @property
    def prompts(self) -> list[str]:
        """The prompts of the content to generate: the main one and the prompts of sides, without empty ones."""
        return validation.prompts(self.__dict__)

    @property
    def edits_canvas(self) -> bool:
        """Whether it edits an image of any size and preserves the known pixels: inpainting and outpainting."""
        return f.edits_canvas(self.mode)

    @property
    def outpaints(self) -> bool:
        """Whether it generates margins around an image."""
        return self.mode == "outpaint"

    @property
    def needs_square(self) -> bool:
        """Whether it works on square images only: all modes but text to image."""
        return self.mode != "generate"

    @property
    def inverts(self) -> bool:
        """Whether sampling starts from the noise of an image, found by inversion, and not from new noise."""
        return validation.inverts(self.__dict__)

    @property
    def count(self) -> int:
        """The number of images."""
        return self.n * len(self._frames())

    def images(self) -> Iterator[Request]:
        """One request per image, made lazily: n = 1 and seed + i; all frames of a sequence have the same seed.

        With best_of, they are all equal, and the i-th represents the candidate of rank i. Raises RequestError without a
        seed.
        """
        if self.seed is None:
            raise RequestError("seed is not set; choose one before the request is split into images")
        if self.best_of is not None:
            return (self.replace(n=1) for _ in range(self.n))
        return (self.replace(n=1, seed=self.seed + i, **frame) for i in range(self.n) for frame in self._frames())

    def candidates(self) -> list[Request]:
        """The requests of all candidates of a request with best_of, one image each."""
        if self.seed is None or self.best_of is None:
            raise RequestError("candidates need a seed and best_of")
        return [self.replace(n=1, best_of=None, seed=self.seed + i) for i in range(self.best_of)]

    def _frames(self) -> list[dict[str, Any]]:
        """The fields that differ between the images of a sequence; a single image has no difference."""
        if self.frames is not None:
            if self.mode == "edit":
                name, end = "theta", f.THETA if self.theta is None else self.theta
            else:
                name, end = "fraction", 1.0
            return [{"frames": None, name: end * i / (self.frames - 1)} for i in range(self.frames)]
        return [{"components": (count,)} for count in self.components] if self.components else [{}]

    def to_dict(self) -> dict[str, Any]:
        """The fields of the mode as JSON values; the size as "WxH". `from_dict` restores the request.

        An image in memory becomes a description of its size, from which no request can be made.
        """
        foreign = f.foreign_fields(self.mode)
        found = {name: value for name, value in self.__dict__.items() if name not in foreign}
        for name in f.FILE_FIELDS:
            if found.get(name) is not None:
                found[name] = _describe(found[name])
        if self.sources is not None:
            found["sources"] = [_describe(source) for source in self.sources]
        found |= {name: list(found[name]) for name in ("weights", "components") if found.get(name) is not None}
        return {**found, "size": None if self.size is None else values.size_text(self.size)}


def request_error(error: ValidationError) -> RequestError:
    """The first error of a validation as a RequestError of one line."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return cause
    field = ".".join(map(str, first["loc"])) or "request"
    return RequestError(f"{field}: {' '.join(first['msg'].split())}")


def _describe(source: Any) -> str:
    """A source as text; an image in memory by its size."""
    return source if isinstance(source, str) else f"<an image of {values.size_text(source.size)}>"
