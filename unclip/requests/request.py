"""Request: one job, validated once as it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from unclip.errors import RequestError
from unclip.requests import fields as f
from unclip.requests import validation, values
from unclip.requests.field_types import (
    LIMITED,
    REQUIRED,
    Choice,
    Decimal,
    Integer,
    Integers,
    OptionalPrompt,
    Prompt,
    Source,
    checked,
    one_line_errors,
)
from unclip.requests.sources import source_kind


class Request(BaseModel):
    """A request for images. A field that is None takes the model's default; 0 is a value.

    Raises RequestError, whose message names the field, the value and the fix.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompt: Prompt = Field("", description="text; may be empty where an image or an embedding guides")
    negative_prompt: Prompt = Field("", description="text that guidance steers away from")
    mode: Annotated[str, REQUIRED] = Field("generate", description="what to do")
    seed: Integer = Field(None, description="image i of the request has seed + i")
    n: Annotated[int, REQUIRED] = Field(1, description="number of images")
    steps: Integer = Field(None, description="denoising steps of the decoder")
    prior: Choice = Field(None, description="kind of prior that samples the embedding of a prompt")
    prior_steps: Integer = Field(None, description="denoising steps of the diffusion prior")
    upsampler_steps: Integer = Field(None, description="denoising steps of each upsampler")
    guidance: Decimal = Field(None, description="classifier-free guidance scale of the decoder")
    prior_guidance: Decimal = Field(None, description="classifier-free guidance scale of the prior")
    noise_level: Integer = Field(
        None, description="Stable unCLIP: noise added to the image embedding; more varies the image more"
    )
    sampler: Choice = Field(None, description="sampler of the decoder")
    prior_sampler: Choice = Field(None, description="sampler of the diffusion prior")
    prior_temperature: Decimal = Field(
        None, description="temperature of the autoregressive prior: 0 takes the most probable codes, 1 samples them"
    )
    prior_top_p: Decimal = Field(
        None, description="probability of the codes that the autoregressive prior samples from, most probable first"
    )
    speed: Choice = Field(
        None,
        description="best: the model's defaults; balanced, fast: faster settings, tested for its family. Other fields "
        "win over it",
    )
    spacing: Choice = Field(
        None,
        description="of the decoder's timesteps: uniform (the sampler's own), or by noise level: karras, log-snr, ays",
    )
    guidance_interval: Annotated[tuple[float, float] | None, LIMITED] = Field(
        None,
        description='(low, high), or "0.3,5": noise levels sigma with guidance; it is 1 at all others. Default: all',
    )
    guidance_every: Integer = Field(
        None, description="k: the decoder's guidance is computed at every k-th step, and reused between"
    )
    cache_every: Integer = Field(
        None, description="k: all layers of the decoder run at every k-th step; deep features are reused between"
    )
    upsampler_cache_every: Integer = Field(None, description="the same for the upsamplers")
    size: Annotated[tuple[int, int] | None, LIMITED] = Field(
        None,
        description='(width, height) in pixels, or "64x64", or 64; when outpainting, of the whole canvas; not for '
        "inpainting. Default: the model's own",
    )
    prior_best_of: Integer = Field(
        None, description="embeddings that the prior samples; the one closest to the text is used"
    )
    id: Annotated[str | None, checked(values.text)] = Field(
        None, description="the caller's name for the job, passed through"
    )
    image: Source = Field(None, description="the image to edit or to start from: a file or a PIL image of any size")
    mask: Source = Field(
        None, description="inpaint: the mask, a file or a PIL image of the image's size. Default: its transparency"
    )
    mask_mode: Choice = Field(
        None, description="inpaint: the pixels of the mask that are repainted: white (default), black or alpha"
    )
    feather: Integer = Field(None, description="inpaint: pixels over which the repainted side fades into the kept one")
    resample: Integer = Field(
        None, description="inpaint, outpaint: RePaint passes per stretch of steps; more blend better"
    )
    keep_style: Decimal = Field(
        None, description="inpaint, outpaint: weight of the image's own embedding against the prompt's, of 1"
    )
    left: Integer = Field(None, description="outpaint: pixels to add on the left")
    right: Integer = Field(None, description="outpaint: pixels to add on the right")
    top: Integer = Field(None, description="outpaint: pixels to add at the top")
    bottom: Integer = Field(None, description="outpaint: pixels to add at the bottom")
    anchor: Choice = Field(None, description="outpaint, with size: where on the canvas the image is placed")
    left_prompt: OptionalPrompt = Field(None, description="outpaint: prompt for the left side")
    right_prompt: OptionalPrompt = Field(None, description="outpaint: prompt for the right side")
    top_prompt: OptionalPrompt = Field(None, description="outpaint: prompt for the top")
    bottom_prompt: OptionalPrompt = Field(None, description="outpaint: prompt for the bottom")
    best_of: Integer = Field(
        None,
        description="candidates, with seeds seed .. seed + best_of - 1; the n with the best CLIP scores are kept "
        "(similarity to the prompt, not quality)",
    )
    embedding: Source = Field(
        None,
        description="a file of `unclip embed`, used in place of the prior's embedding; for edit: the target",
    )
    fit: Choice = Field(
        None, description="how an image becomes square: crop to its middle, or pad with the colour of its border"
    )
    strength: Decimal = Field(
        None, description="vary: 1 starts from new noise, 0 from the image's own; between, a part of it is renewed"
    )
    sources: Annotated[tuple[Any, ...] | None, checked(values.sources)] = Field(
        None, description="interpolate: two or more images, prompts or files of `unclip embed`"
    )
    fraction: Decimal = Field(None, description="interpolate: the place between two sources, 0 the first, 1 the second")
    weights: Annotated[tuple[float, ...] | None, LIMITED] = Field(
        None, description="interpolate: the weight of each source"
    )
    same_noise: Annotated[bool | None, checked(values.truth)] = Field(
        None, description="interpolate: use the seed's noise for all images, not the images' own"
    )
    theta: Decimal = Field(
        None,
        description="edit: rotation of the embedding towards the prompt or the target: 0 none, 1 all the way",
    )
    from_prompt: OptionalPrompt = Field(None, description="edit: what the image shows, from which the prompt differs")
    components: Integers = Field(
        None, description="reconstruct: principal components of the embedding that are kept; one image for each number"
    )
    frames: Integer = Field(
        None, description="interpolate, edit: images of a sequence from one end to the other, with one seed"
    )

    def __init__(self, /, **fields: Any) -> None:  # "/": a mapping from a file may have any key
        fields = validation.rename_old_fields(fields)
        validation.check_names(fields, self.field_names())
        with one_line_errors():
            super().__init__(**fields)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """A request from a mapping, or from a Request. Raises RequestError, as Request(...) does."""
        if isinstance(obj, Mapping):
            validation.check_keys(obj)
        with one_line_errors():
            return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """A request from a JSON object. Raises RequestError, as Request(...) does."""
        with one_line_errors():
            return super().model_validate_json(json_data, **options)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The schema of the fields as JSON values, with the limits that they are validated by."""
        schema = handler.resolve_ref_schema(handler(core))
        for name, field in schema["properties"].items():
            value = values.field_schema(name)
            if value is not None:
                field.pop("type", None)
                is_required = cls.model_fields[name].default is not None
                field |= value if is_required else {"anyOf": [*value.get("anyOf", [value]), {"type": "null"}]}
        return schema

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
        validation.check_keys(fields)
        # Records of earlier versions have a field `rank`, which is always null there.
        return cls(**{name: value for name, value in fields.items() if name != "rank" or value is not None})

    @classmethod
    def check_value(cls, name: str, value: Any) -> None:
        """Raise RequestError for a value that this field cannot have, whatever the other fields are."""
        with one_line_errors():
            try:
                BaseModel.__init__(cls.__new__(cls), **{name: value})
            except ValidationError as error:
                if error.errors(include_url=False)[0]["loc"]:  # otherwise only the fields do not fit each other
                    raise

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

    def texts(self) -> list[tuple[str, str]]:
        """(field, text) of each text that describes an image, without empty ones."""
        found = [(name, getattr(self, name)) for name in f.TEXT_FIELDS]
        found += [("sources", one) for one in self.sources or () if source_kind(one) == "prompt"]
        return [(name, text) for name, text in found if text and text.strip()]

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
        if self.count == 1 and not self.components and self.frames is None:
            return iter((self,))  # nothing changes, so nothing is validated again
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
                found[name] = values.describe_source(found[name])
        if self.sources is not None:
            found["sources"] = [values.describe_source(source) for source in self.sources]
        found |= {
            name: list(found[name])
            for name in ("weights", "components", "guidance_interval")
            if found.get(name) is not None
        }
        return {**found, "size": None if self.size is None else values.size_text(self.size)}
