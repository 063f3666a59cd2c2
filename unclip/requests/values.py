"""Checks and conversions of single values. Every error names the field, the value and the fix."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unclip.errors import RequestError, nearest
from unclip.requests.fields import FILE_FIELDS, LIMITS, MAX_SIDE, Interval, OneOf, Whole
from unclip.requests.sources import EmbeddingBytes, named_kind, source_kind

SIZE = r"\s*(\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?\s*"
"""The texts that give a size."""


def within_limits(name: str, value: Any) -> Any:
    """The value of a field of `LIMITS` in its final form. Raises RequestError for one out of its limits."""
    limit = LIMITS[name]
    if name == "size":
        return parse_size(value)
    if isinstance(limit, OneOf):
        return choice(name, value, limit.choices)
    if isinstance(limit, Interval):
        return interval(name, value, limit.high)

    def check(name: str, one: Any) -> Any:
        return integer(name, one, limit.low, limit.high) if isinstance(limit, Whole) else number(name, one, limit.high)

    return numbers(name, value, check) if limit.many else check(name, value)


def field_schema(name: str) -> dict[str, Any] | None:
    """The JSON schema of a field's values, other than null; None if pydantic's own says all."""
    if name in FILE_FIELDS:
        return {"type": "string"}
    if name == "sources":
        return {"type": "array", "items": {"type": "string"}, "minItems": 2}
    limit = LIMITS.get(name)
    if limit is None:
        return None
    if isinstance(limit, OneOf):
        return {"type": "string", "enum": list(limit.choices)}
    one: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": limit.high}
    pair = {"type": "array", "items": one, "minItems": 2, "maxItems": 2}
    if isinstance(limit, Interval):
        return pair
    if isinstance(limit, Whole):
        one |= {"type": "integer", "minimum": limit.low} | ({"unit": limit.unit} if limit.unit else {})
    if name == "size":
        return {"anyOf": [{"type": "string", "pattern": f"^{SIZE}$"}, one, pair]}
    return {"type": "array", "items": one, "minItems": 1} if limit.many else one


def parse_size(value: Any) -> tuple[int, int]:
    """(width, height) in pixels from "64x48", "64", 64, or a pair."""
    sides: Any = value
    if isinstance(value, str):
        match = re.fullmatch(SIZE, value, re.ASCII)
        sides = (int(match[1]), int(match[2] or match[1])) if match else None
    elif isinstance(value, int) and not isinstance(value, bool):
        sides = (value, value)
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise RequestError(f"size must be WIDTHxHEIGHT in pixels, such as 64x64, not {show(value)}")
    return integer("size", sides[0], 1, MAX_SIDE), integer("size", sides[1], 1, MAX_SIDE)


def size_text(size: Sequence[int]) -> str:
    """(64, 48) -> "64x48"."""
    return f"{size[0]}x{size[1]}"


def text(name: str, value: Any) -> str:
    """Text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, not {show(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{name} {show(value)} is not valid Unicode; give it as UTF-8") from None
    return value


def prompt(name: str, value: Any) -> str:
    """Text that describes an image, and does not end like the name of a file.

    Whether there is such a file is not asked: the message may go to a client that must not know this machine's files.
    """
    found = text(name, value)
    kind = named_kind(found)
    if kind == "unread":
        raise RequestError(f"{name} {show(found)} is a file of a format that is not read; give a PNG, JPEG or WebP")
    if kind is not None:
        fix = "say in words what to show, or end it with a full stop"
        raise RequestError(f"{name} {show(found)} ends like the name of an {kind} file; {fix}")
    return found


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the choices."""
    if not isinstance(value, str) or value not in choices:
        near = nearest(value, choices) if isinstance(value, str) and len(value) < 80 else None
        guess = f"did you mean {near!r}? " if near else ""
        raise RequestError(f"{name} {show(value)} is unknown; {guess}choose from {', '.join(choices)}")
    return value


def truth(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, not {show(value)}")
    return value


def integer(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from low to high."""
    found = None
    if not isinstance(value, bool):  # True is an int to Python, but never to a user
        try:
            found = operator.index(value)
        except TypeError:
            found = None
    if found is None or not low <= found <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {show(value)}")
    return found


def number(name: str, value: Any, high: float) -> float:
    """A number from 0 to high."""
    found = math.nan
    if not isinstance(value, (bool, str, bytes)):
        try:
            found = float(value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
    if not 0 <= found <= high:  # False for NaN, too
        raise RequestError(f"{name} must be a number from 0 to {high}, not {show(value)}")
    return found


def numbers(name: str, value: Any, check: Callable[[str, Any], Any]) -> tuple[Any, ...]:
    """At least one number, each through `check(name, number)`; from a list, a single number, or text "5,10"."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        value = [(int(part) if re.fullmatch(r"\d{1,9}", part, re.ASCII) else _float(part)) for part in parts]
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise RequestError(f"{name} is empty; give at least one number")
    return tuple(check(name, one) for one in values)


def interval(name: str, value: Any, high: float) -> tuple[float, float]:
    """Two rising numbers from 0 to high; from a pair, or from text "0.3,5"."""
    found = numbers(name, value, lambda name, one: number(name, one, high))
    if len(found) != 2 or found[0] >= found[1]:
        raise RequestError(f"{name} must be two numbers, the lower one first, such as 0.3,5, not {show(value)}")
    return found[0], found[1]


def source(name: str, value: Any) -> Any:
    """The path of a file as text, a prompt (for `sources`), or a PIL image. An embedding is a file or its contents."""
    if name == "embedding" and isinstance(value, EmbeddingBytes):
        return value
    if isinstance(value, (str, Path)):
        text(name, str(value))
        found = str(value) if isinstance(value, Path) else value.strip() if name == "sources" else value
        if not found.strip():
            raise RequestError(f"{name} is empty where an image or a prompt is needed; name one")
        return prompt(name, found) if name == "sources" and source_kind(found) == "prompt" else found
    if name == "embedding" or not hasattr(value, "getexif"):  # PIL is not imported to compare
        wanted = "a file of `unclip embed`" if name == "embedding" else "an image, or a PIL image"
        raise RequestError(f"{name} must be the path of {wanted}, not {show(value)}")
    return value


def sources(name: str, value: Any) -> tuple[Any, ...]:
    """Two or more sources, from a list or from text with "|" between them."""
    given = value.split("|") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or len(given) < 2:
        raise RequestError(f"{name} must be two or more images or prompts to interpolate; name them")
    return tuple(source(name, one) for one in given)


def show(value: Any) -> str:
    """A value for an error message: one line of at most 80 printable characters."""
    try:
        shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except (ValueError, RecursionError):  # Python does not print integers of thousands of digits, or deep nesting
        shown = f"this {type(value).__name__}"
    shown = " ".join(shown.split())
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _float(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def describe_source(source: Any) -> str:
    """A source as text; an image in memory by its size."""
    if isinstance(source, EmbeddingBytes):
        return repr(source)
    return source if isinstance(source, str) else f"<an image of {size_text(source.size)}>"
