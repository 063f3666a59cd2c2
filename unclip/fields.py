"""The modes of a request, the fields that each has, and the checks of single values. Imports nothing heavy."""

import math
import operator
import os
import re
from pathlib import Path
from typing import Any

from unclip.errors import RequestError

MASK_MODES = ("white", "black", "alpha")
ANCHORS = ("center", "left", "right", "top", "bottom", "top-left", "top-right", "bottom-left", "bottom-right")
FITS = ("crop", "pad")
SIDES = ("left", "right", "top", "bottom")
SIDE_PROMPTS = tuple(f"{side}_prompt" for side in SIDES)
PRIOR_FIELDS = ("prior_steps", "prior_guidance", "prior_sampler", "prior_best_of")
EDIT_FIELDS = (*PRIOR_FIELDS, "image", "embedding", "harmonize", "keep_style")
FIELDS_OF = {  # those that only some modes have
    "generate": (*PRIOR_FIELDS, "embedding"),
    "inpaint": (*EDIT_FIELDS, "mask", "mask_mode", "feather"),
    "outpaint": (*EDIT_FIELDS, *SIDES, *SIDE_PROMPTS, "anchor"),
    "vary": ("image", "fit", "strength"),
    "interpolate": (*PRIOR_FIELDS, "sources", "weights", "share", "frames", "same_noise", "fit"),
    "edit": ("image", "fit", "embedding", "from_prompt", "theta", "frames"),
    "reconstruct": ("image", "fit", "components"),
}
MODES = tuple(FIELDS_OF)
CANVAS_MODES = ("inpaint", "outpaint")
"""Those that work on a canvas of any size, and keep what is known of it."""
FILE_FIELDS = ("image", "mask", "embedding")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
EMBEDDING_SUFFIX = ".safetensors"
MAX_SEED = 2**63 - 1
MAX_STEPS = 1000  # the length of the training schedule
MAX_GUIDANCE = 1000
MAX_IMAGES = 100_000
MAX_CANDIDATES = 1024
MAX_FRAMES = 1000
MAX_SIDE = 8192
THETA = 0.35  # how far a text diff turns an embedding, where nothing is said


def foreign_fields(mode: str) -> set[str]:
    """The fields that other modes have and this one has not."""
    return {name for names in FIELDS_OF.values() for name in names} - set(FIELDS_OF[mode])


def source_kind(source: Any) -> str:
    """What an end of an interpolation is: a "picture", an "embedding" (both files, by their suffix) or a "prompt"."""
    if not isinstance(source, str):
        return "picture"
    suffix = Path(source).suffix.lower()
    if suffix == EMBEDDING_SUFFIX:
        return "embedding"
    return "picture" if suffix in PICTURE_SUFFIXES else "prompt"


def check_is_prompt(text: str) -> None:
    """Raise RequestError for what is the name of a file, though not of one that is read."""
    if Path(text).suffix and os.path.isfile(text):  # a word may be a file's name, too
        raise RequestError(f"{text!r} is a file, and of no format that is read; give a PNG, JPEG or WebP, or a prompt")


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
