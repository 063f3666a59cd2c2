"""Checks and conversions of single values. Every error names the field, the value and the fix."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unclip.errors import RequestError
from unclip.requests.fields import MAX_SIDE


def parse_size(value: Any) -> tuple[int, int]:
    """(width, height) in pixels from "64x48", "64", 64, or a pair."""
    sides: Any = value
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?\s*", value, re.ASCII)
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


def choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of the choices."""
    if value not in choices:
        raise RequestError(f"{name} {show(value)} is unknown; choose from {', '.join(choices)}")
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


def source(name: str, value: Any) -> Any:
    """The path of a file as text, a prompt (for `sources`), or a PIL image. An embedding is a file only."""
    if isinstance(value, (str, Path)):
        text(name, str(value))
        found = str(value) if isinstance(value, Path) else value.strip() if name == "sources" else value
        if not found.strip():
            raise RequestError(f"{name} is empty where an image or a prompt is needed; name one")
        return found
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
    except (ValueError, RecursionError):  # Python does not print integers of thousands of digits, nor deep nesting
        shown = f"this {type(value).__name__}"
    shown = " ".join(shown.split())
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _float(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value
