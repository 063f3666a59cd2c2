"""Read the body of a call: JSON or a form, as clients send them, within limits."""

import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from unclip.server.errors import ApiError
from unclip.system.json_values import parse_json

MAX_FILES = 17  # OpenAI's limit is 16 images and a mask
MAX_FIELDS = 200
MAX_VALUES = 10_000
"""Values of a JSON body. Each takes up to a hundred times as much memory as in the text."""
LARGE = 1 << 18
"""Bytes of a JSON body that is parsed beside the event loop."""


@dataclass(frozen=True)
class Body:
    """The fields of a call: JSON values, or text from a form. files: the contents of its files, by field."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)
    is_form: bool = False


async def read_body(http: HttpRequest) -> Body:
    """The body of a call. Fields that are null or empty are left out; `image[]` and `image[0]` are the same as `image`.

    Raises ApiError if it is neither a JSON object nor a form.
    """
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _read_form(http)
    if media_type not in ("", "application/json", "text/json") and not media_type.endswith("+json"):
        raise ApiError(
            f"Unsupported content type: {media_type[:80]!r}. Send application/json or multipart/form-data.", 415
        )
    data = await http.body()
    return Body(await anyio.to_thread.run_sync(_parse_json, data) if len(data) > LARGE else _parse_json(data))


def _parse_json(data: bytes) -> dict[str, Any]:
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise ApiError(f"The body has too many values. At most {MAX_VALUES:,} are read.")
    try:
        found = parse_json(data)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ApiError(f"The body is not valid JSON: {reason}.") from None
    if not isinstance(found, dict):
        raise ApiError('The body must be a JSON object, such as {"prompt": "a red balloon"}.')
    return {name: value for name, value in found.items() if value not in (None, "")}


async def _read_form(http: HttpRequest) -> Body:
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    try:
        # The limit of the body limits all parts; images may be text parts, as data urls.
        async with http.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=sys.maxsize) as form:
            for key, value in form.multi_items():
                name = re.sub(r"\[\d*\]$", "", key)
                if isinstance(value, UploadFile):
                    files.setdefault(name, []).append(await value.read())
                elif name in fields:
                    several = fields[name] if isinstance(fields[name], list) else [fields[name]]
                    fields[name] = [*several, value]
                elif value != "":
                    fields[name] = value
    except HTTPException as error:  # Starlette's, for a damaged form
        raise ApiError(f"The form cannot be read: {error.detail}") from None
    except FormParserError:  # the parser's own, which Starlette before 1.0 passes on
        raise ApiError("The form cannot be read: Invalid multipart data.") from None
    return Body(fields, files, is_form=True)
