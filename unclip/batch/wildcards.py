"""Wildcards in a prompt: `{red|blue} balloon`, `{2$$a|b|c}`. They may be nested.

    {a|b|c}            one option
    {2$$a|b|c}         two different options, in the order of the list, joined by ", "
    {1-2$$a|b|c}       one or two options
    {2$$ and $$a|b|c}  two options, joined by " and "
    __animals__        one line of the word list "animals"
    {2$$__animals__}   two different lines of it

A backslash before one of `{ } | $ \\` or before `__` makes it plain text; before any other character it is a backslash.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from unclip.errors import RequestError

MAX_COMBINATIONS = 100_000
"""Largest number of combinations that a line may have; the count stops there."""
_MAX_DEPTH = 20
_LIST = r"(?<!\w)__[^\W_]+(?:[_/-][^\W_]+)*__(?!\w)"
_TOKEN = re.compile(rf"\\(?:[{{}}|$\\]|__)|\$\$|[{{}}|]|{_LIST}|[^\\{{}}|$_]+|[\\$_]")
_SPECIAL = re.compile(r"[{}\\]|__")  # a prompt without these is plain text
_COUNT = re.compile(r"\s*(\d{1,3})(?:\s*-\s*(\d{1,3}))?\s*", re.ASCII)

Parts = tuple["str | Choice", ...]
Lists = Callable[[str], "Choice"]
"""Finds a word list by its name. Raises RequestError if there is none."""


@dataclass(frozen=True)
class Choice:
    """`low` to `high` different options, joined by `separator`. is_list: they are the lines of a word list."""

    options: tuple[Parts, ...]
    low: int = 1
    high: int = 1
    separator: str = ", "
    is_list: bool = False

    def selections(self) -> Iterator[tuple[Parts, ...]]:
        """All selections of options, smaller ones first."""
        for count in range(self.low, self.high + 1):
            yield from itertools.combinations(self.options, count)

    @cached_property  # a word list is a part of many prompts
    def count(self) -> int:
        """The number of texts, saturated."""
        return _count_choice(self)

    @cached_property
    def can_be_blank(self) -> bool:
        """Whether some selection leaves no text but blanks."""
        return _choice_can_be_blank(self)


@dataclass(frozen=True)
class Template:
    """A prompt that may have wildcards. Create one with `parse`."""

    parts: Parts

    @property
    def has_choices(self) -> bool:
        return any(isinstance(part, Choice) for part in self.parts)

    def sample(self, seed: int) -> str:
        """One of the prompts. The same seed gives the same prompt on every machine."""
        rng = random.Random(seed)  # Python guarantees the sequence of random() only
        return _sample(self.parts, rng.random)

    def combinations(self) -> Iterator[str]:
        """All prompts, in the order of the options; the last choice varies fastest."""
        return _combinations(self.parts)

    def count(self) -> int:
        """The number of `combinations`; MAX_COMBINATIONS + 1 if there are more. In linear time."""
        return _count(self.parts)

    @property
    def can_be_blank(self) -> bool:
        """Whether some choice leaves no text but blanks."""
        return _can_be_blank(self.parts)


def parse(text: str, lists: Lists | None = None) -> Template:
    """The template of a prompt. lists: None leaves `__names__` as they are.

    Raises RequestError for an unmatched brace, `{}`, `{one}`, or an impossible count, and as `lists` does.
    """
    if not _SPECIAL.search(text):
        return Template((text,))
    tokens = _TOKEN.findall(text)
    parts, end = _parse(text, tokens, 0, 0, lists)
    if end < len(tokens):
        raise RequestError(
            f"prompt has a }} without its {{ in {_near(text, tokens, end)}; write \\}} for a plain brace"
        )
    return Template(parts)


def escape(text: str) -> str:
    """The text with backslashes, so that it parses to a template with the text as its only prompt."""
    return re.sub(r"[{}|$\\]|__", r"\\\g<0>", text)


def _parse(text: str, tokens: list[str], start: int, depth: int, lists: Lists | None) -> tuple[Parts, int]:
    """The parts from token `start` to the end of the text or of an option, and the index of the token after them."""
    if depth > _MAX_DEPTH:
        raise RequestError(f"prompt nests its braces deeper than {_MAX_DEPTH}; flatten it")
    parts: list[str | Choice] = []
    i = start
    while i < len(tokens):
        token = tokens[i]
        if token == "{":
            choice, i = _parse_choice(text, tokens, i, depth + 1, lists)
            parts.append(choice)
            continue
        if token == "}" or (depth and token in ("|", "$$")):
            break
        if token[0] == "\\" and len(token) > 1:
            parts.append(token[1:])
        elif lists is not None and len(token) > 4 and token[:2] == token[-2:] == "__":
            parts.append(lists(token[2:-2]))
        else:
            parts.append(token)
        i += 1
    return _merge(parts), i


def _parse_choice(text: str, tokens: list[str], start: int, depth: int, lists: Lists | None) -> tuple[Choice, int]:
    """The choice whose { is token `start`, and the index of the token after its }."""
    options: list[Parts] = []
    heads: list[Parts] = []  # the count and the separator, each followed by $$
    i = start
    while True:
        parts, i = _parse(text, tokens, i + 1, depth, lists)
        if i == len(tokens):
            raise RequestError(f"prompt has a {{ that is never closed in {_near(text, tokens, start)}; add its }}")
        if tokens[i] == "$$":
            if options or len(heads) == 2:
                raise RequestError(
                    f"prompt has a $$ out of place in {_near(text, tokens, start)}; write \\$\\$ for plain text"
                )
            heads.append(parts)
            continue
        options.append(parts)
        if tokens[i] == "}":
            break
    if (listed := _list_alone(options)) is not None:
        options = list(listed.options)
    elif not heads and len(options) == 1:
        raise RequestError(
            f"prompt has braces without a choice in {_near(text, tokens, start)}; write {{a|b}}, or \\{{ for a brace"
        )
    if not heads:
        return Choice(tuple(options)), i + 1
    plain = all(isinstance(part, str) for head in heads for part in head)
    texts = ["".join(map(str, head)) for head in heads]
    match = _COUNT.fullmatch(texts[0]) if plain else None
    if match is None:
        raise RequestError(f"prompt has no count before the $$ in {_near(text, tokens, start)}; write {{2$$a|b|c}}")
    low = int(match[1])
    high = int(match[2] or low)
    if not 1 <= low <= high <= len(options):
        raise RequestError(
            f"prompt asks for {texts[0].strip()} of {len(options)} options in {_near(text, tokens, start)}; "
            f"ask for 1 to {len(options)}"
        )
    return Choice(tuple(options), low, high, texts[1] if len(texts) == 2 else ", "), i + 1


def _list_alone(options: list[Parts]) -> Choice | None:
    """The word list that is the only option, as in `{2$$__animals__}`; else None."""
    parts = [part for part in options[0] if not isinstance(part, str) or part.strip()] if len(options) == 1 else []
    return parts[0] if len(parts) == 1 and isinstance(parts[0], Choice) and parts[0].is_list else None


def _merge(parts: list[str | Choice]) -> Parts:
    """The parts, with adjacent texts joined."""
    merged: list[str | Choice] = []
    for is_text, group in itertools.groupby(parts, lambda part: isinstance(part, str)):
        together = list(group)
        merged += ["".join(map(str, together))] if is_text else together
    return tuple(merged)


def _near(text: str, tokens: list[str], index: int) -> str:
    """The text around a token, for error messages."""
    place = sum(map(len, tokens[:index]))
    return repr(text[place : place + 30] if text[place] == "{" else text[max(0, place - 29) : place + 1])


def _sample(parts: Parts, uniform: Callable[[], float]) -> str:
    out = []
    for part in parts:
        if isinstance(part, str):
            out.append(part)
            continue
        count = part.low + int(uniform() * (part.high - part.low + 1))
        left = list(range(len(part.options)))
        chosen = sorted(left.pop(int(uniform() * len(left))) for _ in range(count))
        out.append(part.separator.join(_sample(part.options[i], uniform) for i in chosen))
    return "".join(out)


def _combinations(parts: Parts) -> Iterator[str]:
    return map("".join, _product([_texts_of(part) for part in parts]))


def _texts_of(part: str | Choice) -> Callable[[], Iterator[str]]:
    return lambda: iter((part,)) if isinstance(part, str) else _choice_texts(part)


def _choice_texts(choice: Choice) -> Iterator[str]:
    for selection in choice.selections():
        yield from map(choice.separator.join, _product([partial(_combinations, option) for option in selection]))


def _product(each: Sequence[Callable[[], Iterator[str]]]) -> Iterator[list[str]]:
    """The Cartesian product, as of `itertools.product`, which would first list all texts of each."""
    iterators = [make() for make in each]
    texts = list(map(next, iterators))
    while True:
        yield texts
        for place in reversed(range(len(each))):
            text = next(iterators[place], None)
            if text is not None:
                texts[place] = text
                break
            iterators[place] = each[place]()
            texts[place] = next(iterators[place])
        else:
            return


def _can_be_blank(parts: Parts) -> bool:
    return all(not part.strip() if isinstance(part, str) else part.can_be_blank for part in parts)


def _choice_can_be_blank(choice: Choice) -> bool:
    blank = sum(map(_can_be_blank, choice.options))
    return blank >= choice.low and (choice.low == 1 or not choice.separator.strip())


def _count(parts: Parts) -> int:
    count = 1
    for part in parts:
        if isinstance(part, Choice):
            count = _saturate(count * part.count)
            if count > MAX_COMBINATIONS:
                break
    return count


def _count_choice(choice: Choice) -> int:
    """The sum of the elementary symmetric polynomials of the options' counts, of degree `low` to `high`.

    Each has at least as many terms as there are selections. If these are not too many, the degree k is small, or n - k:
    e_k is the coefficient of x^k in the product of (1 + count x), and of x^(n - k) in the product of (count + x).
    """
    n = len(choice.options)
    total = 0
    for selected in range(choice.low, choice.high + 1):
        total = _saturate(total + _binomial(n, selected))
        if total > MAX_COMBINATIONS:
            return total
    counts = [_count(option) for option in choice.options]
    degrees = range(choice.low, choice.high + 1)
    small = [degree for degree in degrees if degree <= n - degree]
    large = [n - degree for degree in degrees if degree > n - degree]
    terms = _coefficients([(1, count) for count in counts], small)
    return _saturate(terms + _coefficients([(count, 1) for count in counts], large))


def _coefficients(factors: list[tuple[int, int]], degrees: list[int]) -> int:
    """The sum of the coefficients of these degrees in the product of (a + b x), saturated."""
    if not degrees:
        return 0
    product = [1] + [0] * max(degrees)
    for a, b in factors:
        for degree in range(len(product) - 1, 0, -1):
            product[degree] = _saturate(a * product[degree] + b * product[degree - 1])
        product[0] = _saturate(a * product[0])
    return sum(product[degree] for degree in degrees)


def _binomial(n: int, k: int) -> int:
    """The number of selections of k of n, saturated."""
    found = 1
    for i in range(1, min(k, n - k) + 1):  # grows quickly, so that few steps reach the limit
        found = found * (n - i + 1) // i
        if found > MAX_COMBINATIONS:
            break
    return _saturate(found)


def _saturate(count: int) -> int:
    return min(count, MAX_COMBINATIONS + 1)
