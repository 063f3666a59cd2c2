"""Convert text into the values of a request's fields, and find the field that an error is about."""

import re
from typing import Any, get_args

from unclip.requests.fields import OLD_NAMES
from unclip.requests.request import Request


def field_types() -> dict[str, set[type]]:
    """The types that each field of a Request may have, by name: {"seed": {int, NoneType}, ...}.

    Parts of an annotation that are no plain types, such as `tuple[float, ...]`, are left out.
    """
    annotations = {name: info.annotation for name, info in Request.model_fields.items()}
    members = {name: get_args(annotation) or (annotation,) for name, annotation in annotations.items()}
    return {name: {member for member in found if isinstance(member, type)} for name, found in members.items()}


FIELDS = field_types()
READABLE = FIELDS | {old: FIELDS[new] for old, new in OLD_NAMES.items()}
"""The fields that a source of requests may have: present names and old ones."""


def parse_value(name: str, value: Any) -> Any:
    """The value of a field, from a cell, an option or a form: "7" -> 7 for a field of integers.

    Floats with integer values, which tables with gaps hold, become integers. A value that does not fit is returned as
    it is: Request refuses it with a message that names the field.
    """
    types = READABLE.get(name, set())
    if isinstance(value, float) and int in types and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return str(value) if name == "id" and isinstance(value, int) else value
    text = value.strip()
    if int in types and re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII):
        return int(text)
    if float in types and re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return float(text)
    if bool in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return value


def named_field(message: str) -> str | None:
    """The field whose name an error message begins with, as Request's do; None if it is about no field."""
    first = re.match(r"'?(\\?[\w-]+)'? ", message)
    is_field = first is not None and (first[1] in READABLE or "is not a field of a request" in message)
    return first[1] if first and is_field else None
