"""JSON of files that others may have written, or damaged."""

import json
import math
from typing import Any

MAX_DEPTH = 100
"""Nesting that is read. Python's own limit depends on what runs at the moment."""


def parse_json(data: str | bytes, *, finite: bool = True) -> Any:
    """The value of a JSON text. Raises ValueError, and nothing else, if it is not JSON or nested too deeply.

    finite: also refuse numbers that no JSON writer gives and that few readers expect: NaN, Infinity and 1e999.
    """
    numbers: Any = {"parse_constant": _refuse_constant, "parse_float": _parse_float} if finite else {}
    try:
        value = json.loads(data, **numbers)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _parts(value: Any) -> list[Any]:
    """The lists and objects directly inside a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in inner if isinstance(part, (dict, list))]


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not finite")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
