"""Checks and conversions of single values."""

import math
import operator
import re
from typing import Any

from unclip.errors import RequestError
from unclip.requests.fields import MAX_SIDE


def parse_size(value: str | int | tuple[int, int] | list[int]) -> tuple[int, int]:
    """(width, height) in pixels from "64x48", "64", 64, or a pair. Raises RequestError."""
    sides: Any = value
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d{1,9})(?:\s*[xX×]\s*(\d{1,9}))?\s*", value, re.ASCII)
        sides = (int(match[1]), int(match[2] or match[1])) if match else None
    elif isinstance(value, int) and not isinstance(value, bool):
        sides = (value, value)
    if not isinstance(sides, (tuple, list)) or len(sides) != 2:
        raise RequestError(f"size must be WIDTHxHEIGHT in pixels, such as 64x64, not {show(value)}")
    return integer("size", sides[0], 1, MAX_SIDE), integer("size", sides[1], 1, MAX_SIDE)


def size_text(size: tuple[int, int]) -> str:
    """(64, 48) -> "64x48"."""
    return f"{size[0]}x{size[1]}"


def check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise RequestError(f"{name} must be text, not {show(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{name} {show(value)} is not valid Unicode; give it as UTF-8") from None


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RequestError(f"{name} {show(value)} is unknown; choose from {', '.join(choices)}")


def integer(name: str, value: Any, low: int, high: int) -> int:
    number = None
    if not isinstance(value, bool):  # True is an int to Python, never to a user
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    if number is None or not low <= number <= high:
        raise RequestError(f"{name} must be a whole number from {low} to {high}, not {show(value)}")
    return number


def number(name: str, value: Any, high: float) -> float:
    number = math.nan
    if not isinstance(value, (bool, str, bytes)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not 0 <= number <= high:  # nor NaN
        raise RequestError(f"{name} must be a number from 0 to {high}, not {show(value)}")
    return number


def show(value: Any) -> str:
    """A value for an error message: one line, not too long, printable everywhere."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        text = f"this {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else text[:77] + "..."


def numbers(name: str, value: Any, check: Any) -> tuple:
    """A tuple of at least one number, each through `check(name, number)`; from a list, one alone, or text "5,10"."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        value = [(int(p) if re.fullmatch(r"\d{1,9}", p, re.ASCII) else _float(p)) for p in parts]
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise RequestError(f"{name} is empty; give at least one number")
    return tuple(check(name, one) for one in values)


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
