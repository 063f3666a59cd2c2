"""Choices in a prompt: `{red|blue} balloon`, `{2$$a|b|c}`, nested at will.

    {a|b|c}            one of them
    {2$$a|b|c}         two different ones, in the order of the list, joined by ", "
    {1-2$$a|b|c}       one or two
    {2$$ and $$a|b|c}  joined by " and "

A backslash before one of `{ } | $ \\` takes its meaning away; before anything else it is a backslash.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unclip.errors import RequestError

MAX_COMBINATIONS = 100_000
_MAX_DEPTH = 20
_TOKEN = re.compile(r"\\[{}|$\\]|\$\$|[{}|]|[^\\{}|$]+|[\\$]")
_MARKS = re.compile(r"[{}\\]")  # without these a prompt is what it says
_COUNT = re.compile(r"\s*(\d{1,3})(?:\s*-\s*(\d{1,3}))?\s*", re.ASCII)

Parts = tuple["str | Choice", ...]


@dataclass(frozen=True)
class Choice:
    """`low` to `high` different ones of `options`, joined by `joint`."""

    options: tuple[Parts, ...]
    low: int = 1
    high: int = 1
    joint: str = ", "

    def picks(self) -> Iterator[tuple[Parts, ...]]:
        for count in range(self.low, self.high + 1):
            yield from itertools.combinations(self.options, count)


@dataclass(frozen=True)
class Template:
    """A prompt with choices in it. Build one with `parse`."""

    parts: Parts

    @property
    def has_choices(self) -> bool:
        return any(isinstance(part, Choice) for part in self.parts)

    def sample(self, seed: int) -> str:
        """One of the prompts; the same seed gives the same one, on every machine."""
        rng = random.Random(seed)  # only its random() is promised to stay as it is
        return _sample(self.parts, rng.random)

    def combinations(self) -> Iterator[str]:
        """All of the prompts, in the order of the choices, the last of which turns fastest."""
        return _combinations(self.parts)

    def count(self) -> int:
        """How many `combinations` there are."""
        return _count(self.parts)


def parse(text: str) -> Template:
    """Raises RequestError for a brace without its partner, `{}`, `{one}`, or a count that its list cannot give."""
    if not _MARKS.search(text):
        return Template((text,))
    tokens = _TOKEN.findall(text)
    parts, end = _parse(text, tokens, 0, 0)
    if end < len(tokens):
        raise RequestError(f"prompt has a }} without its {{ in {_near(text, tokens, end)}; write \\}} for a lone brace")
    return Template(parts)


def escape(text: str) -> str:
    """A template that has `text` as its only prompt."""
    return re.sub(r"[{}|$\\]", r"\\\g<0>", text)


def _parse(text: str, tokens: list[str], start: int, depth: int) -> tuple[Parts, int]:
    """Parts from `start` to the end of the text, or to what ends an option."""
    if depth > _MAX_DEPTH:
        raise RequestError(f"prompt nests its braces deeper than {_MAX_DEPTH}; flatten it")
    parts: list[str | Choice] = []
    i = start
    while i < len(tokens):
        token = tokens[i]
        if token == "{":
            choice, i = _choice(text, tokens, i, depth + 1)
            parts.append(choice)
            continue
        if token == "}" or (depth and token in ("|", "$$")):
            break
        parts.append(token[1] if len(token) == 2 and token[0] == "\\" else token)
        i += 1
    return _merged(parts), i


def _choice(text: str, tokens: list[str], start: int, depth: int) -> tuple[Choice, int]:
    options: list[Parts] = []
    heads: list[Parts] = []  # what stands before a $$
    i = start
    while True:
        parts, i = _parse(text, tokens, i + 1, depth)
        if i == len(tokens):
            raise RequestError(f"prompt has a {{ that is never closed in {_near(text, tokens, start)}; add its }}")
        if tokens[i] == "$$":
            if options or len(heads) == 2:
                raise RequestError(f"prompt has a $$ out of place in {_near(text, tokens, start)}; write \\$\\$ for it")
            heads.append(parts)
            continue
        options.append(parts)
        if tokens[i] == "}":
            break
    if not heads and len(options) == 1:
        raise RequestError(
            f"prompt has braces without a choice in {_near(text, tokens, start)}; write {{a|b}}, or \\{{ for a brace"
        )
    return _counted(tuple(options), heads, _near(text, tokens, start)), i + 1


def _counted(options: tuple[Parts, ...], heads: list[Parts], near: str) -> Choice:
    if not heads:
        return Choice(options)
    plain = all(isinstance(part, str) for head in heads for part in head)
    texts = ["".join(map(str, head)) for head in heads]
    match = _COUNT.fullmatch(texts[0]) if plain else None
    if match is None:
        raise RequestError(f"prompt has no count before the $$ in {near}; write {{2$$a|b|c}}")
    low = int(match[1])
    high = int(match[2] or low)
    if not 1 <= low <= high <= len(options):
        asked, given = texts[0].strip(), len(options)
        raise RequestError(f"prompt asks for {asked} of {given} in {near}; ask for 1 to {given}")
    return Choice(options, low, high, texts[1] if len(texts) == 2 else ", ")


def _merged(parts: list[str | Choice]) -> Parts:
    merged: list[str | Choice] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return tuple(merged)


def _near(text: str, tokens: list[str], index: int) -> str:
    """Where in the text a token is, for a message."""
    place = sum(map(len, tokens[:index]))
    return repr(text[place : place + 30] if text[place] == "{" else text[max(0, place - 29) : place + 1])


def _sample(parts: Parts, draw: Callable[[], float]) -> str:
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
            continue
        count = part.low + int(draw() * (part.high - part.low + 1))
        left = list(range(len(part.options)))
        chosen = sorted(left.pop(int(draw() * len(left))) for _ in range(count))
        out.append(part.joint.join(_sample(part.options[i], draw) for i in chosen))
    return "".join(out)


def _combinations(parts: Parts) -> Iterator[str]:
    each = [[part] if isinstance(part, str) else list(_choices(part)) for part in parts]
    return map("".join, itertools.product(*each))


def _choices(choice: Choice) -> Iterator[str]:
    for pick in choice.picks():
        for texts in itertools.product(*(list(_combinations(option)) for option in pick)):
            yield choice.joint.join(texts)


def _count(parts: Parts) -> int:
    return math.prod(1 if isinstance(part, str) else _count_choice(part) for part in parts)


def _count_choice(choice: Choice) -> int:
    """The elementary symmetric polynomials of the options' counts, summed from `low` to `high`."""
    sums = [1] + [0] * choice.high
    for option in choice.options:
        n = _count(option)
        for size in range(choice.high, 0, -1):
            sums[size] += sums[size - 1] * n
    return sum(sums[choice.low :])
