"""One line of a prompt file, and the conversion of its text into the values of a request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, get_args

from unclip.requests.request import Request

FIELDS = {
    name: {part.__name__ for part in get_args(field.annotation) or (field.annotation,) if isinstance(part, type)}
    for name, field in Request.model_fields.items()
}
"""A request's fields and the types that each may have, by name."""


@dataclass(frozen=True)
class Row:
    """A line that could be read.

    line      its number in the file, from 1; of a record of several lines, the first
    index     its place among the lines that hold a record, from 0; comments, blank lines and headers do not count
    fields    fields of a Request
    columns   other columns of the file, carried into the manifest
    """

    line: int
    index: int
    fields: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be drawn, and why; `field` is None where the problem is not one field's."""

    line: int
    index: int
    problem: str
    field: str | None = None

    @classmethod
    def of(cls, line: int, index: int, error: Exception) -> BadLine:
        """From an error whose message begins with the field's name, as those of Request do."""
        problem = " ".join(str(error).split()) or type(error).__name__
        first = re.match(r"'?(\\?[\w-]+)'? ", problem)
        named = first is not None and (first[1] in FIELDS or "is not a field of a request" in problem)
        return cls(line, index, problem, first[1] if named else None)


def typed(name: str, value: Any) -> Any:
    """The value that a cell or an option stands for: "7" -> 7 for a field of whole numbers.

    What does not fit is returned as it is, for the Request to refuse by name. Floats with whole values, as tables with
    gaps hold them, become whole numbers.
    """
    types = FIELDS.get(name, set())
    if isinstance(value, float) and "int" in types and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return str(value) if name == "id" and isinstance(value, int) else value
    text = value.strip()
    if "int" in types and re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII):
        return int(text)
    if "float" in types and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return float(text)
    if "bool" in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return value
