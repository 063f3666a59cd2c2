"""Several seeds in one value: "7", "1,2,3", "1..8", "1..4,9"."""

import re
from collections.abc import Mapping
from typing import Any

from unclip.errors import RequestError
from unclip.requests.fields import MAX_IMAGES, MAX_SEED
from unclip.requests.values import integer, show

_PART = re.compile(r"\s*(\d{1,20})(?:\s*\.\.\s*(\d{1,20}))?\s*", re.ASCII)


def parse_seeds(value: Any) -> tuple[int, ...]:
    """The seeds of a number, of a list, or of a text such as "1,2,3" or "1..8", which includes both ends.

    Raises RequestError for anything else, for a seed that is out of range or given twice, and for more than MAX_IMAGES.
    """
    if isinstance(value, str):
        ranges = [_range(value, part) for part in value.split(",")]
    else:
        listed = value if isinstance(value, list | tuple) and value else [value]
        ranges = [range(seed, seed + 1) for seed in (integer("seed", one, 0, MAX_SEED) for one in listed)]
    count = sum(one.stop - one.start for one in ranges)  # of a long range, len() raises OverflowError
    if count > MAX_IMAGES:
        raise RequestError(f"seed lists {count:,} seeds; at most {MAX_IMAGES:,} images can be made at once")
    seeds = tuple(seed for one in ranges for seed in one)
    seen: set[int] = set()
    if twice := [seed for seed in seeds if seed in seen or seen.add(seed)]:
        raise RequestError(f"seed {twice[0]} is listed twice; keep one of them")
    return seeds


def lists_several(value: Any) -> bool:
    """Whether the value of a field `seed` is written as several seeds."""
    if isinstance(value, str):
        return "," in value or ".." in value
    return isinstance(value, list | tuple) and len(value) > 1


def split_seeds(fields: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The fields of a request with its first seed, and all its seeds; without a seed, the same fields and ().

    With several seeds, each is of one image, or of one sequence: n may only repeat their number, and becomes 1. Raises
    RequestError.
    """
    value = fields.get("seed")
    if value is None:
        return dict(fields), ()
    if not lists_several(value):  # Request itself judges what a single seed may be
        seed: Any = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
        return {**fields, "seed": seed}, (seed,)
    seeds = parse_seeds(value)
    if fields.get("n") not in (None, 1, len(seeds)):
        raise RequestError(f"n is {show(fields['n'])}, but {len(seeds)} seeds are listed, for one image each; omit n")
    if fields.get("best_of") is not None:
        raise RequestError("best_of takes its candidates from one seed on, not from a list of seeds; give one seed")
    return {**fields, "seed": seeds[0], "n": 1}, seeds


def _range(value: str, part: str) -> range:
    match = _PART.fullmatch(part)
    if match is None:
        text = part.strip()
        single = "," not in value and ".." not in value and re.fullmatch(r"-?[\d.]+", text, re.ASCII)
        fix = "" if single else ", or several, such as 1,2,3 or 1..8"
        raise RequestError(f"seed must be a whole number from 0 to {MAX_SEED}{fix}, not {show(value)}")
    low, high = (integer("seed", int(end), 0, MAX_SEED) for end in (match[1], match[2] or match[1]))
    if low > high:
        raise RequestError(f"seed {show(value)} counts down; write the smaller seed first")
    return range(low, high + 1)
