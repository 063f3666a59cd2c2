"""File names of images: safe on every file system, and never outside the folder."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.errors import InputError, RequestError
from unclip.requests.request import Request
from unclip.requests.sources import source_kind

DEFAULT = "{index:05d}-{slug}-{seed}"
NUMBERS = ("index", "line", "image", "seed")
TEXTS = ("slug", "id", "size", "mode", "model", "sampler")
SLUG_LENGTH = 60
MAX_LENGTH = 180  # of each part of a path; with "-2.jpeg" appended, it stays below the usual limit of 255 bytes
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}  # on Windows
_OWN = {".unclip", "manifest.jsonl", "errors.jsonl"}  # of the output folder
_LITERAL = re.compile(r"[A-Za-z0-9 _.,+=@()\[\]~/-]*")


@dataclass(frozen=True)
class NameTemplate:
    """A pattern such as "{index:05d}-{slug}-{seed}". Create one with `parse`.

    index   position of the line in the file, from 0, without comments and blank lines
    line    number of the line in the file, from 1
    image   position of the image among those of its line, from 0
    seed    of the image
    slug    the prompt or the names of the sources, as `slug` spells them
    id, size, mode, model, sampler, and every other column of the file, spelt in the same way
    """

    text: str
    parts: tuple[tuple[str, str | None, str], ...]  # (literal, field, format of the field)

    @classmethod
    def parse(cls, text: str) -> NameTemplate:
        """Parse a pattern. Raises InputError for one that gives names that some file system cannot have."""
        try:
            parsed = [
                (literal, field, spec or "", conversion)
                for literal, field, spec, conversion in string.Formatter().parse(text)
            ]
        except ValueError as error:
            raise InputError(f"--name {text!r}: {error}; write it as {DEFAULT!r}") from None
        for literal, field, spec, conversion in parsed:
            if not _LITERAL.fullmatch(literal):
                bad = next(c for c in literal if not _LITERAL.fullmatch(c))
                raise InputError(f"--name {text!r}: {bad!r} is not safe in a file name; leave it out")
            if field is None:
                continue
            if conversion or not re.fullmatch(r"[^\W\d][\w -]*", field):
                raise InputError(f"--name {text!r}: {field!r} is not a name; known are {', '.join(NUMBERS + TEXTS)}")
            allowed = r"(0?\d{1,2})?d?" if field in NUMBERS else r"(\.[1-9]\d{0,2})?"
            if not re.fullmatch(allowed, spec, re.ASCII):
                example = "05d" if field in NUMBERS else ".20"
                raise InputError(f"--name {text!r}: {spec!r} cannot format {field}; write it as {{{field}:{example}}}")
        if not any(field for _, field, _, _ in parsed):
            raise InputError(f"--name {text!r} is the same for every image; write it as {DEFAULT!r}")
        # A field stands as a letter that no reserved name has.
        for part in "".join(literal + ("y" if field else "") for literal, field, _, _ in parsed).split("/"):
            if not part or part.startswith(".") or part.endswith((".", " ")) or part.startswith(" "):
                raise InputError(
                    f"--name {text!r}: {part!r} is not a part of a path; begin and end each with a letter or a digit"
                )
            if _is_reserved(part):
                raise InputError(
                    f"--name {text!r}: {part!r} is a reserved name on Windows, or the folder's own; change it"
                )
        return cls(text, tuple((literal, field, spec) for literal, field, spec, _ in parsed))

    def name(self, values: Mapping[str, Any], suffix: str) -> str:
        """The path of an image in the folder, with "/" between its parts. Raises RequestError for a missing column."""
        filled = []
        for literal, field, spec in self.parts:
            filled.append(literal)
            if field in NUMBERS:
                filled.append(format(values[field], spec))
            elif field is not None:
                if field not in values:
                    known = ", ".join((*NUMBERS, *TEXTS))
                    raise RequestError(f"name: the line has no column {field!r} for --name; known are {known}")
                value = values[field]
                filled.append(format(slug("none" if value in (None, "") else str(value)), spec))
        parts = [_safe(part) for part in "".join(filled).split("/")]
        return "/".join(parts) + suffix


def slug(text: str, length: int = SLUG_LENGTH) -> str:
    """A text as part of a file name: at most `length` lower-case ASCII letters, digits and single hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:length].rstrip("-") or "image"


def title(request: Request) -> str:
    """The text that names an image: its prompt, or if it has none, the names of its sources."""
    if request.prompt.strip():
        return request.prompt
    target = request.embedding if request.image is not None and not request.edits_canvas else None
    sources = request.sources or (request.image or request.embedding, target)
    parts = [Path(one).stem if source_kind(one) != "prompt" else one for one in sources if isinstance(one, str)]
    return " to ".join(parts)


def _safe(part: str) -> str:
    """A part of a path, cut to the limit, and changed if it is a reserved name."""
    part = part[:MAX_LENGTH].strip(". ") or "image"
    if not _is_reserved(part):
        return part
    stem, dot, rest = part.partition(".")  # Windows reserves "nul.1.png" for "nul", too
    return f"{stem.rstrip()}_{dot}{rest}"


def _is_reserved(part: str) -> bool:
    return part.partition(".")[0].strip().casefold() in _RESERVED or part.casefold() in _OWN
