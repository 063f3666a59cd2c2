"""One line of a prompt file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unclip.requests.text_values import named_field


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
        return cls(line, index, problem, named_field(problem))
