"""OpenAI's Images API: the fields of a call become a Request, with notes on what has no effect."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ValidationError

from unclip.errors import RequestError, did_you_mean
from unclip.pipeline import Unclip
from unclip.requests.fields import CANVAS_MODES, FIELDS_OF, foreign_fields
from unclip.requests.other_tools import check_no_weights
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.text_values import parse_value
from unclip.requests.validation import rename_old_fields
from unclip.requests.values import show, size_text
from unclip.server import schemas
from unclip.server.body import MAX_FILES, Body
from unclip.server.canvas import Selection, parse_frame, select
from unclip.server.errors import ApiError, field_of
from unclip.server.jobs import Interest
from unclip.server.settings import ServerSettings
from unclip.server.uploads import Upload

ALIASES = re.compile(r"dall-e-\d|(chat)?gpt-image-.+")
"""Names of OpenAI's models, which clients send without asking: they stand for the first model."""
UNUSED = ("quality", "style", "moderation", "input_fidelity", "complexity")
"""Fields of OpenAI's that are accepted and have no effect, which a note says."""


FILES = ("image", "images", "mask")
"""Fields that `uploads` reads."""


@dataclass(frozen=True)
class Output:
    """How a call wants its images.

    format: png, jpeg or webp. quality: of a lossy format, or None. is_opaque: no pixel should be transparent.
    """

    url: bool
    b64_json: bool
    format: str
    quality: int | None
    is_opaque: bool


@dataclass(frozen=True)
class Call:
    """A call that was understood. input: bytes of its decoded input images."""

    request: Request
    model: str
    output: Output
    interest: Interest
    stream: bool
    notes: tuple[str, ...]
    input: int = 0


@dataclass(frozen=True)
class Models:
    """The loaded models by name, in the order in which they were given."""

    pipelines: Mapping[str, Unclip]

    def find(self, name: str | None) -> str:
        """The name of the model that a call means. Raises ApiError if there is none of the name."""
        if name is None or name not in self.pipelines and ALIASES.fullmatch(name):
            return next(iter(self.pipelines))
        if name not in self.pipelines:
            hint = did_you_mean(name, self.pipelines)
            raise ApiError(f"The model {show(name)} does not exist; {hint}", 404, param="model", code="model_not_found")
        return name


@dataclass(frozen=True)
class Protocol:
    """Turns the bodies of calls into Calls, for one server. Decodes images, so it belongs in a thread of its own."""

    models: Models
    settings: ServerSettings

    def generation(self, body: Body) -> Call:
        """A call for images from a prompt."""
        fields = validate(schemas.Generation, schemas.GENERATE, body)
        if not fields.get("prompt"):
            raise ApiError("Missing required parameter: 'prompt'.", param="prompt", code="missing_required_parameter")
        return self._call(fields, schemas.GENERATE[0], {}, [])

    def edit(self, body: Body, images: Sequence[Upload], masks: Sequence[Upload]) -> Call:
        """A call to edit an image: masked pixels, margins, or without either the whole image, by a text diff."""
        fields = validate(schemas.Edit, schemas.EDIT, body)
        image = self._one_image(images)
        if len(masks) > 1:
            raise ApiError(f"{len(masks)} masks were given; send one.", param="mask")
        mask = masks[0].decode(self.settings.max_pixels) if masks else None
        frame = parse_frame(fields.pop("frame", None), self.settings.max_pixels)
        selection = select(image, mask, fields.get("mask_mode"), frame)
        mode, notes = edit_mode(fields, selection)
        if mode == "outpaint" and selection.margins is not None and fields.get("size") == selection.image.size:
            del fields["size"]  # of the result, which the margins say already
        if mode == "inpaint":
            if fields.pop("size", selection.image.size) != selection.image.size:
                raise ApiError(
                    "size must be the image's own when inpainting; leave it out, or extend it with mode outpaint",
                    param="size",
                )
            found = {"image": selection.image, "mask": selection.mask, "mask_mode": selection.mask_mode}
        elif mode == "outpaint" and selection.margins is not None and not given(fields, ("size", *selection.margins)):
            found = {"image": selection.opaque_part(), **selection.margins}
        else:
            found = {"image": selection.image}
        if mode != "inpaint" and mask is not None:
            raise ApiError(f"mask is a field of inpaint, and this call's mode is {mode}", param="mask")
        return self._call(fields, mode, found, notes)

    def variation(self, body: Body, images: Sequence[Upload]) -> Call:
        """A call for variations of an image, its reconstruction, or an interpolation between several sources."""
        fields = validate(schemas.Variation, schemas.VARY, body)
        texts = fields.pop("sources", None) or ()
        frame = parse_frame(fields.pop("frame", None), self.settings.max_pixels)
        mode = fields.get("mode") or ("interpolate" if texts or len(images) > 1 else pick_mode(fields, schemas.VARY))
        if mode == "interpolate" and frame is not None:
            raise ApiError("frame is a part of one image, and interpolations have several; leave it out", param="frame")
        if len(images) + len(texts) > MAX_FILES:
            raise ApiError(f"At most {MAX_FILES} images and texts are interpolated.", param="sources")
        if mode != "interpolate":
            if texts:
                raise ApiError(f"sources is a field of interpolate, and this call's mode is {mode}", param="sources")
            image = self._one_image(images)
            return self._call(fields, mode, {"image": select(image, None, None, frame).image}, [])
        sources = [image.decode(self.settings.max_pixels) for image in images]
        return self._call(fields, mode, {"sources": (*sources, *map(check_text, texts))}, [])

    def _one_image(self, images: Sequence[Upload]) -> Image.Image:
        if not images:
            raise ApiError("Missing required parameter: 'image'.", param="image", code="missing_required_parameter")
        if len(images) > 1:
            raise ApiError(f"{len(images)} images were given; this model edits one image at a time.", param="image")
        return images[0].decode(self.settings.max_pixels)

    def _call(self, fields: dict[str, Any], mode: str, found: Mapping[str, Any], notes: Iterable[str]) -> Call:
        """A Call from validated fields and decoded images. Raises ApiError for what the model cannot do."""
        own = {name: value for name, value in fields.items() if name in Request.field_names()}
        others = {name: value for name, value in fields.items() if name not in own}
        model = self.models.find(others.get("model"))
        pipe = self.models.pipelines[model]
        size, sizes = own.get("size"), pipe.model.sizes
        if size is not None and mode not in CANVAS_MODES and size not in sizes:
            raise ApiError(f"{size_text(size)!r} is not one of {list(map(size_text, sizes))} - 'size'", param="size")
        try:
            request = pipe.resolve(Request(**{**own, "mode": mode, **found}))
            for name, text in request.texts():
                check_no_weights(name, text)
            pipe.check(request)
            width, height = pipe.output_size(request)
        except RequestError as error:
            raise ApiError(str(error), param=field_of(str(error))) from None
        count, limit = max(request.count, request.best_of or 0), self.settings.max_images
        if count > limit:
            name = "n" if request.n > limit else "best_of" if request.best_of else "frames"
            raise ApiError(f"Invalid '{name}': this server generates at most {limit} images a call.", param=name)
        if width * height > self.settings.max_pixels:
            raise ApiError(
                f"The result would be {width}x{height}; this server makes at most {self.settings.max_pixels:,} pixels.",
                param="size",
            )
        images = {id(image): image for image in found.values() if isinstance(image, Image.Image)}
        images |= {id(image): image for image in found.get("sources", ()) if isinstance(image, Image.Image)}
        return Call(
            request,
            model,
            self._output(others),
            self._interest(others),
            bool(others.get("stream")),
            (*notes, *unused_notes(others), *stream_notes(others, request)),
            sum(image.width * image.height * len(image.getbands()) for image in images.values()),
        )

    def _output(self, fields: Mapping[str, Any]) -> Output:
        format, quality = fields.get("output_format", "png"), fields.get("output_compression")
        if quality is not None and format == "png":
            raise ApiError("output_compression is for jpeg and webp; leave it out for png", param="output_compression")
        if fields.get("background") == "transparent":
            raise ApiError(
                "background 'transparent' is not supported: images are opaque; leave it out", param="background"
            )
        wanted, name = fields.get("response_format"), fields.get("model") or ""
        if wanted is None and ALIASES.fullmatch(name) and name not in self.models.pipelines:
            wanted = "url" if name.startswith("dall-e") else "b64_json"
        is_opaque = fields.get("background") == "opaque"
        return Output(wanted in (None, "url"), wanted in (None, "b64_json"), format, quality, is_opaque)

    def _interest(self, fields: Mapping[str, Any]) -> Interest:
        if not fields.get("stream"):
            return Interest()
        return Interest(bool(fields.get("progress")), fields.get("partial_images", 0))


def validate(schema: type[BaseModel], modes: Sequence[str], body: Body) -> dict[str, Any]:
    """The fields of a call that are given, checked and converted. Raises ApiError for the first that is wrong."""
    names = schema.model_fields
    try:
        fields = rename_old_fields(body.fields)
    except RequestError as error:
        raise ApiError(str(error), param=field_of(str(error))) from None
    if body.is_form:
        fields = {name: parse_value(name, value) for name, value in fields.items()}
    if fields.get("size") == "auto":
        del fields["size"]
    for name in (*fields, *body.files):
        if name == "embedding":
            raise ApiError("embedding is a file of the command line, which a server does not read", param="embedding")
        if name not in names:
            raise ApiError(
                f"Unknown parameter: {show(name)}; {did_you_mean(name, names)}",
                param=str(name)[:80],
                code="unknown_parameter",
            )
    try:
        found = schema(**fields)
    except ValidationError as error:
        raise invalid_value(error) from None
    given = {name: getattr(found, name) for name in fields if name not in FILES}
    if "mode" in given and given["mode"] not in modes:
        raise ApiError(f"{given['mode']!r} is not one of {list(modes)} - 'mode'", param="mode", code="invalid_value")
    for name, value in given.items():
        if isinstance(value, str) and len(value) > schemas.MAX_TEXT:
            raise ApiError(
                f"Invalid '{name}': string too long. At most {schemas.MAX_TEXT} characters are read.", param=name
            )
    return given


def invalid_value(error: ValidationError) -> ApiError:
    """The first error of a validation, in OpenAI's words."""
    first = error.errors(include_url=False)[0]
    name = ".".join(map(str, first["loc"]))
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return ApiError(str(cause), param=name)
    if first["type"] == "literal_error":
        choices = "[" + first.get("ctx", {})["expected"].replace(" or ", ", ") + "]"
        return ApiError(f"{show(first['input'])} is not one of {choices} - '{name}'", param=name, code="invalid_value")
    return ApiError(f"Invalid value for '{name}': {first['msg']}.", param=name, code="invalid_value")


def given(fields: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Those of the names that a call gives."""
    return [name for name in names if fields.get(name) is not None]


def pick_mode(fields: Mapping[str, Any], modes: Sequence[str]) -> str:
    """The first mode that has all fields that a call gives; the first of all, whose check says what is wrong."""
    return next((mode for mode in modes if not given(fields, foreign_fields(mode))), modes[0])


def edit_mode(fields: Mapping[str, Any], selection: Selection) -> tuple[str, list[str]]:
    """(mode, notes) of an edit: as the call says, or else as its fields and its image do."""
    if fields.get("mode") is not None:
        return fields["mode"], []
    possible = [mode for mode in schemas.EDIT if not given(fields, foreign_fields(mode))] or list(schemas.EDIT)
    if selection.mask is not None:
        return "inpaint", []
    if given(fields, set(FIELDS_OF["outpaint"]) - set(FIELDS_OF["inpaint"])):
        return "outpaint", []
    if selection.margins is not None and "outpaint" in possible:
        return "outpaint", []
    if selection.has_transparency and "inpaint" in possible:
        return "inpaint", []
    if "edit" in possible and fields.get("prompt"):
        return "edit", ["without a mask or transparency, the whole image is changed, by a text diff (mode edit)"]
    return "inpaint", []


def check_text(text: str) -> str:
    """A source of an interpolation that is a text. Raises ApiError for what could be the name of a file."""
    if source_kind(text) != "prompt" or Path(text).suffix:
        raise ApiError(f"sources: {show(text)} looks like the name of a file; send images as files", param="sources")
    return text


def unused_notes(fields: Mapping[str, Any]) -> list[str]:
    """Notes on fields without effect."""
    found = [name for name in given(fields, UNUSED) if fields[name] not in ("auto", "standard")]
    return [f"{name} {fields[name]!r} has no effect on this model" for name in found]


def stream_notes(fields: Mapping[str, Any], request: Request) -> list[str]:
    """Notes on fields of a stream in a call that has none."""
    if not fields.get("stream"):
        return [f"{name} has an effect with stream only" for name in ("partial_images", "progress") if fields.get(name)]
    if fields.get("partial_images") and request.best_of is not None:
        return ["the candidates of best_of have no partial images"]
    return []
