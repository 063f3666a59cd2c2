"""The fields of a call: checked and converted; the mode that they imply; notes on those without effect."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from unclip.errors import RequestError, did_you_mean
from unclip.requests.fields import FIELDS_OF, foreign_fields
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.text_values import parse_value
from unclip.requests.validation import rename_old_fields
from unclip.requests.values import show
from unclip.server import schemas
from unclip.server.body import Body
from unclip.server.canvas import Selection
from unclip.server.errors import ApiError, field_of

UNUSED = ("quality", "style", "moderation", "input_fidelity", "complexity")
"""Fields of OpenAI's that are accepted and have no effect, which a note says."""
FILES = ("image", "images", "mask", "embedding")
"""Fields that `uploads` reads."""


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
    if "edit" in possible and (fields.get("prompt") or "embedding" in fields):
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
