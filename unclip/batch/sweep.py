"""A sweep: one prompt with every combination of some values of its fields, run like a prompt file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unclip.batch.row import BadLine, Row
from unclip.errors import InputError, RequestError
from unclip.requests.fields import FILE_FIELDS, LIMITS, MAX_IMAGES, OLD_NAMES, TEXT_FIELDS, Whole
from unclip.requests.other_tools import SAME, plain_name
from unclip.requests.request import Request
from unclip.requests.seeds import parse_seeds
from unclip.requests.text_values import FIELDS, parse_value
from unclip.requests.values import show, size_text

NO_AXES = {
    "n": "each combination is one image; use --vary seed=1..4",
    "frames": "each combination is one image; vary fraction or theta",
    "id": "it changes nothing in an image",
}
_SEVERAL = ("sources", "weights", "components")  # fields whose values have commas of their own


@dataclass(frozen=True)
class Axis:
    """A field and its values, in order."""

    field: str
    values: tuple[Any, ...]

    def label(self, index: int) -> str:
        """A value as text."""
        value = self.values[index]
        return size_text(value) if self.field == "size" and isinstance(value, tuple) else str(value)

    def labels(self) -> list[str]:
        """All values as texts."""
        return [self.label(index) for index in range(len(self.values))]


@dataclass(frozen=True)
class Sweep:
    """The rows of a sweep, one for each combination; the last axis varies fastest.

    fields: those that all combinations have. folder: that the files among the values are relative to.
    """

    axes: tuple[Axis, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    name: str = "sweep"
    folder: Path = Path()

    @property
    def count(self) -> int:
        """The number of combinations."""
        return math.prod(len(axis.values) for axis in self.axes)

    def rows(self) -> Iterator[Row | BadLine]:
        """One row for each combination."""
        names = [axis.field for axis in self.axes]
        for index, values in enumerate(itertools.product(*(axis.values for axis in self.axes))):
            own = dict(zip(names, values, strict=True))
            yield Row(index + 1, index, {**self.fields, **own})

    def check(self) -> None:
        """Raise InputError for more combinations than images that a run may have."""
        if self.count > MAX_IMAGES:
            sides = " x ".join(f"{len(axis.values):,}" for axis in self.axes)
            raise InputError(f"--vary asks for {sides} = {self.count:,} images; at most {MAX_IMAGES:,} can be made")


def parse_axis(text: str) -> Axis:
    """The axis of "guidance=1,2,3", "seed=1..4", "steps=4..8" or "prompt=a cat|a dog".

    Values are separated by commas; where one may have commas itself, in texts and lists, by "|". Raises InputError for
    an unknown field, a value that it cannot have, and a value that is given twice.
    """
    name, mark, value = text.partition("=")
    name = plain_name(name)
    name = OLD_NAMES.get(name, SAME.get(name, name))
    if not mark or not name:
        raise InputError(f"--vary {show(text)}: write FIELD=VALUE,VALUE, such as guidance=1,2,3")
    if name in NO_AXES:
        raise InputError(f"--vary {name}: {NO_AXES[name]}")
    if name not in FIELDS:
        Request.from_dict({"prompt": "x", name: None})  # raises, with the closest name
    values = _split(name, value)
    seen: set[Any] = set()
    for one in values:
        if name != "seed":  # `parse_seeds` has checked those, which may be many
            Request.check_value(name, one)
        key = repr(one) if isinstance(one, list | dict) else one
        if key in seen:
            raise InputError(f"--vary {name}: {show(one)} is given twice; keep one of them")
        seen.add(key)
    return Axis(name, values)


def prompt_axis(prompts: Sequence[str]) -> Axis:
    """The axis of several prompts. Raises InputError for one that is given twice."""
    if len(set(prompts)) < len(prompts):
        raise InputError("a prompt is given twice; keep one of them")
    return Axis("prompt", tuple(prompts))


def _split(name: str, text: str) -> tuple[Any, ...]:
    """The values of an axis."""
    if name == "seed":
        return parse_seeds(text)
    has_commas = name in (*TEXT_FIELDS, *_SEVERAL, *FILE_FIELDS)
    parts = [part.strip() for part in text.split("|" if has_commas or "|" in text else ",")]
    if not all(parts):
        raise InputError(f"--vary {name}: a value is empty in {show(text)}; write FIELD=VALUE,VALUE")
    found: list[Any] = []
    for part in parts:
        low, is_range, high = part.partition("..")
        if is_range and isinstance(LIMITS.get(name), Whole) and name not in _SEVERAL:
            found += _range(name, part, parse_value(name, low), parse_value(name, high))
        else:
            found.append(parse_value(name, part))
    return tuple(found)


def _range(name: str, text: str, low: Any, high: Any) -> range:
    for end in (low, high):
        Request.check_value(name, end)
    if not isinstance(low, int) or not isinstance(high, int) or low > high:
        raise RequestError(f"{name} {show(text)} is not a range; write the smaller number first, such as 4..8")
    if high - low >= MAX_IMAGES:
        raise InputError(f"--vary {name}={text} has more than {MAX_IMAGES:,} values; write fewer")
    return range(low, high + 1)
