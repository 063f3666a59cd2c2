"""Prompt files, read line by line into Rows: JSONL, CSV, TSV, plain text and Parquet; text formats also with gzip.

Memory does not grow with the file.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

from unclip.batch.formats import ParquetRows, read_csv, read_jsonl, read_tsv
from unclip.batch.lines import Lines, RawRow
from unclip.batch.row import BadLine, Row
from unclip.batch.text_format import read_text
from unclip.errors import InputError, RequestError, nearest
from unclip.requests.other_tools import describe_names, hint, rename_fields
from unclip.requests.text_values import FIELDS
from unclip.requests.validation import rename_old_fields
from unclip.requests.values import show

FORMATS = ("jsonl", "csv", "tsv", "txt", "parquet")
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".txt": "txt", ".parquet": "parquet"}
_SAMPLE = 100  # lines that are read for notes
_MAX_NOTES = 20
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Span:
    """Rows `first` to `end` - 1, by their index. line: the line of row `end`; None if the file has no more rows."""

    first: int
    end: int
    line: int | None


@dataclass(frozen=True)
class FileDigest:
    """The contents of a file. changed: time of the last change, in nanoseconds."""

    bytes: int
    sha256: str
    changed: int


@dataclass(frozen=True)
class PromptFile:
    """A prompt file that can be read more than once.

    name        as the user gave it; "-" for standard input
    path        of the file; for standard input and a pipe, of the copy
    format      one of FORMATS
    is_copied   whether it is a copy of standard input or of a pipe; paths in it are relative to the working folder
    """

    name: str
    path: Path
    format: str
    is_copied: bool = False

    @property
    def folder(self) -> Path:
        """The folder that paths in the file are relative to."""
        return Path() if self.is_copied else self.path.parent

    def rows(self, skip: Iterable[Span] = ()) -> Iterator[Row | BadLine]:
        """The rows of the file, in order. Raises InputError for damage to the whole file.

        skip: rows to leave out, in order. Their lines are not parsed.
        """
        spans = iter(skip)
        span = next(spans, None)
        index = 0
        with self._reading() as (raw_rows, skip_to):
            while True:
                if span is not None and index == span.first:
                    if span.line is None:
                        return
                    if index == 0:
                        next(raw_rows, None)  # so that the header of a table is read
                    skip_to(span.line)
                    index, span = span.end, next(spans, None)
                raw = next(raw_rows, None)
                if raw is None:
                    return
                line, fields, columns = raw
                if isinstance(fields, Exception):
                    yield BadLine.of(line, index, fields)
                else:
                    try:
                        yield Row(line, index, rename_fields(rename_old_fields(fields)), columns)
                    except RequestError as error:  # a field has both its names
                        yield BadLine.of(line, index, error)
                index += 1

    def digest(self) -> FileDigest:
        """The size and the hash of the file. Raises InputError if it cannot be read."""
        try:
            with self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                facts = os.fstat(file.fileno())
                return FileDigest(facts.st_size, found, facts.st_mtime_ns)
        except OSError as error:
            raise InputError(f"cannot read {self.name!r} ({error.strerror}); save it again") from None

    def is_changed(self, digest: FileDigest) -> bool:
        """Whether the file was written since this digest was made."""
        facts = self.path.stat()
        return (facts.st_size, facts.st_mtime_ns) != (digest.bytes, digest.changed)

    def header_notes(self) -> list[str]:
        """Notes about the names of fields and columns: those of other tools, those carried into the manifest, typos."""
        names: dict[str, None] = {}
        columns: dict[str, None] = {}
        with self._reading() as (rows, _):
            for _, fields, others in islice(rows, _SAMPLE):  # not all lines have all fields
                names |= {} if isinstance(fields, Exception) else dict.fromkeys(map(str, fields))
                columns |= dict.fromkeys(others)
        notes = [f"columns carried into the manifest: {shorten(columns)}"] if columns else []
        others = filter(None, map(_describe_column, islice(columns, 200)))
        return [*notes, *islice((*describe_names(names), *others), _MAX_NOTES)]

    @contextmanager
    def _reading(self) -> Iterator[tuple[Iterator[RawRow], Callable[[int], None]]]:
        """The rows as they are read, and a function that goes on with a line of the file."""
        if self.format == "parquet":
            table = ParquetRows(self.path, self.name)
            yield iter(table), table.skip_to
            return
        read = {"jsonl": read_jsonl, "csv": read_csv, "tsv": read_tsv, "txt": read_text}[self.format]
        try:
            with closing(_open(self.path)) as stream:
                lines = Lines(stream, "\n" if self.format == "csv" else "")  # the csv module needs line ends
                yield read(lines), lines.skip_to
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot read {self.name!r} to its end ({reason}); save it again") from None
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None


@contextmanager
def prompt_file(name: str, format: str | None = None) -> Iterator[PromptFile]:
    """Open a prompt file, or standard input ("-").

    Standard input and pipes can be read only once, so they are copied to a temporary file for the time of the context.
    If format is None, the suffix determines it (.gz is ignored), or for standard input the content: JSONL if it begins
    with an object, CSV or TSV if its first line names a column "prompt", else text. Raises InputError.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"--input-format {format!r} is unknown; choose from {', '.join(FORMATS)}")
    path = Path(name)
    if name == "-" and sys.stdin is None:
        raise InputError("standard input is closed; give a prompt file")
    with tempfile.TemporaryDirectory(prefix="unclip-") as folder:
        copy = Path(folder) / "copy"
        try:
            with nullcontext(sys.stdin.buffer) if name == "-" else path.open("rb") as stream:
                is_copied = name == "-" or not path.is_file()  # a pipe
                if is_copied:
                    with copy.open("wb") as written:
                        shutil.copyfileobj(stream, written, 1 << 20)
                else:
                    stream.read(1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot read {name!r} ({reason}); give a prompt file, or - for standard input") from None
        if not is_copied:
            yield PromptFile(name, path, format or _format_by_suffix(path))
            return
        has_suffix = path.suffix and name != "-"
        found = format or (_format_by_suffix(path) if has_suffix else _format_by_content(copy))
        yield PromptFile(name, copy, found, is_copied=True)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == _GZIP
    return cast(BinaryIO, gzip.open(path, "rb") if is_gzip else path.open("rb"))


def shorten(names: Iterable[str]) -> str:
    """Names for a message, at most 20 of them."""
    shown = [show(name)[1:-1] for name in islice(names, 21)]
    return ", ".join(shown if len(shown) <= 20 else [*shown[:20], "..."])


def _describe_column(column: str) -> str | None:
    """A note about a column that another tool would read, or whose name is nearly a field's; None for any other."""
    if fix := hint(column):
        return f"column {show(column)} changes nothing; {fix}"
    near = nearest(column.lower(), FIELDS) if len(column) < 40 else None
    return f"column {column!r} is not a field of a request; did you mean {near!r}?" if near else None


def _format_by_suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    if suffixes and suffixes[-1] in _SUFFIXES:
        return _SUFFIXES[suffixes[-1]]
    known = ", ".join(_SUFFIXES)
    raise InputError(f"{path.name}: the suffix is none of {known}; give --input-format")


def _format_by_content(path: Path) -> str:
    try:
        with closing(_open(path)) as stream:
            start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, EOFError, zlib.error):
        start = b""
    if re.match(rb'\{\s*["}]', start):
        return "jsonl"
    cells = [re.split(rb"[\r\n]", start)[0].split(mark) for mark in (b",", b"\t")]
    named = [b"prompt" in [cell.strip(b' "').lower() for cell in some] and len(some) > 1 for some in cells]
    return "csv" if named[0] else "tsv" if named[1] else "txt"
