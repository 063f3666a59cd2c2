"""One line of a prompt file, and the conversion of its text into the values of a request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
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
"""The fields that a prompt file may have: present names and old ones."""


@dataclass(frozen=True)
class Row:
    """A line that could be read.

    line      its number in the file, from 1; the first of a row that spans several
    index     its position among the rows of the file, from 0; comments, blank lines and headers do not count
    fields    fields of a Request
    columns   other columns of the file, carried into the manifest
    """

    line: int
    index: int
    fields: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be run, and the reason. field: None if the problem is not with one field."""

    line: int
    index: int
    problem: str
    field: str | None = None

    @classmethod
    def of(cls, line: int, index: int, error: Exception) -> BadLine:
        """A BadLine from an error. `field` is the field whose name the message begins with, as Request's do."""
        problem = " ".join(str(error).split()) or type(error).__name__
        first = re.match(r"'?(\\?[\w-]+)'? ", problem)
        is_field = first is not None and (first[1] in READABLE or "is not a field of a request" in problem)
        return cls(line, index, problem, first[1] if first and is_field else None)


def parse_value(name: str, value: Any) -> Any:
    """The value of a field, from a cell or an option: "7" -> 7 for a field of integers.

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
    if float in types and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return float(text)
    if bool in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return value
