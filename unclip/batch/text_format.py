"""Reader of plain text: a prompt per line, options after ` -- `, comments after `#`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from unclip.batch.lines import Lines, RawRow
from unclip.errors import RequestError, did_you_mean
from unclip.requests.other_tools import SAME, SIDES, hint, typed_as
from unclip.requests.text_values import READABLE, parse_value
from unclip.requests.values import show

_MARK = re.compile(r"(?:^|\s)--(?=\s|$)")
_ESCAPED = re.compile(r"(?<!\S)\\(?=-)|^\\(?=#|//)")
_BARE_OPTION = re.compile(
    r"(?<!\S)(?:--[A-Za-z][\w-]*(?:=\S*)?(?!\S)"  # --seed 7, --seed=7
    r"|-[A-Za-z]\s*+(?:=\s*+)?\d[\d.]*(?!\S))"  # -n 4, -S1234
)
_WORD = re.compile(r"""(?:[^\s"'\\]++|\\.|"(?:[^"\\]|\\.)*+"|'[^']*+')++""", re.DOTALL)  # as a shell reads it
_PIECE = re.compile(r"""([^\s"'\\]+)|\\(.)|"((?:[^"\\]|\\.)*)"|'([^']*)'""", re.DOTALL)


def read_text(lines: Lines) -> Iterator[RawRow]:
    """Rows of plain text. A backslash before `#` or `//` at the start, or before a word with a hyphen, is left out."""
    for number, text in lines.numbered():
        if isinstance(text, Exception):
            yield number, text, {}
        elif (stripped := text.strip()) and not stripped.startswith("#"):
            yield number, _parse_line(stripped), {}


def parse_options(text: str) -> dict[str, Any]:
    """The fields given by options as on the command line: "--seed 7 -n 2" -> {"seed": 7, "n": 2}.

    Raises RequestError for an unknown option, one without a value, and one that is given twice.
    """
    fields: dict[str, Any] = {}
    words = iter(split_words(text))
    for word in words:
        option, has_value, value = word.partition("=")
        if re.match(r"-n\d", word):
            option, has_value, value = "-n", "=", word[2:]
        name = _options().get(option)
        if name is None:
            raise RequestError(f"options: {_describe_unknown(option)}")
        if not has_value:
            value = next(words, None)
            if value is None or value in _options():
                raise RequestError(f"options: argument {option} has no value; write it after the option")
        if name in fields:
            raise RequestError(f"{name} is given twice; keep one of them")
        fields[name] = parse_value(typed_as(name), value)
    return fields


def split_words(text: str) -> Iterable[str]:
    """The words of a text, split and unquoted as by a shell, in linear time, which `shlex` does not have."""
    words, place = [], 0
    for match in _WORD.finditer(text):
        if text[place : match.start()].strip():
            break
        words.append("".join(_unquote(*piece.groups()) for piece in _PIECE.finditer(match[0])))
        place = match.end()
    if text[place:].strip():
        raise RequestError("the options cannot be read; close every quotation mark")
    return words


def _unquote(plain: str | None, escaped: str | None, double: str | None, single: str | None) -> str:
    """The text of a part of a word, of which one is given."""
    if double is not None:
        return re.sub(r'\\(["\\])', r"\1", double)
    return next(text for text in (plain, escaped, single) if text is not None)


def _parse_line(text: str) -> dict[str, Any] | Exception:
    """The fields of `a cat -- --seed 7`."""
    prompt, *options = _MARK.split(text, maxsplit=1)
    if prompt.startswith("//"):
        return RequestError(r"the line begins with //, and comments begin with #; write \// for plain text")
    if bare := _BARE_OPTION.search(prompt):
        option = show(bare[0]).strip("'\"")
        return RequestError(
            f"{option} is an option without ' -- ' before it; write: a cat -- --seed 7, or \\{option} for plain text"
        )
    prompt = _ESCAPED.sub("", prompt.strip())
    fields = {} if options and not prompt else {"prompt": prompt}
    try:
        if options and (first := options[0].strip()) and not first.startswith("-"):
            raise RequestError(f"options begin with -, not {show(first[:40])}; in a prompt write \\-- for a lone --")
        return fields | parse_options("".join(options))
    except RequestError as error:
        return error


@functools.cache
def _options() -> dict[str, str]:
    """The option of each field but the prompt."""
    names = {f"--{name.replace('_', '-')}": name for name in (*READABLE, *SAME, *SIDES) if name != "prompt"}
    return names | {"-n": "n"}


def _describe_unknown(word: str) -> str:
    if not word.startswith("-"):
        return f"unrecognized arguments: {show(word)}; quote a value of several words"
    fix = hint(word.lstrip("-")) or did_you_mean(word[:80], (name for name in _options() if name[2:] not in SAME))
    return f"unrecognized arguments: {show(word)[1:-1]}; {fix}"
