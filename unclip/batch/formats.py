"""Readers of the formats of prompt files. Each yields RawRows.

A line that cannot be read becomes a RawRow with an error, and the next line is read. Only damage to the whole file
raises InputError.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator
from gzip import GzipFile
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from unclip.errors import InputError, RequestError
from unclip.requests.text_values import READABLE, parse_value

MAX_LINE = 1 << 20  # bytes

RawRow = tuple[int, dict[str, Any] | Exception, dict[str, Any]]
"""(line number, fields or the error, other columns); the fields may have old names."""


def parse_options(words: Iterable[str]) -> dict[str, Any]:
    """The fields given by options of the command line: ["--seed", "7", "-n", "2"] -> {"seed": 7, "n": 2}.

    Raises RequestError for an unknown option, or one without a value.
    """
    parsed = vars(_options().parse_args(list(words)))
    return {name: parse_value(name, value) for name, value in parsed.items()}


class Lines:
    """The lines of a byte stream as text, each ending with `end`. `number` counts the lines that were read.

    Bytes that are not UTF-8 become lone surrogates; Request then refuses the field that has them. A line that is too
    long raises csv.Error; the next call returns the line after it.
    """

    def __init__(self, stream: BinaryIO | GzipFile, end: str = "") -> None:
        self._stream = stream
        self._end = end
        self.number = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        data = self._stream.readline(MAX_LINE + 1)
        if not data:
            raise StopIteration
        if self.number == 0:
            if data.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError("the file is UTF-16; save it as UTF-8")
            data = data.removeprefix(b"\xef\xbb\xbf")
        self.number += 1
        if len(data) > MAX_LINE:
            while not data.endswith(b"\n") and (data := self._stream.readline(MAX_LINE)):
                pass
            raise csv.Error(f"the line is longer than {MAX_LINE} bytes; shorten it")
        return data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r") + self._end

    def numbered(self) -> Iterator[tuple[int, str | Exception]]:
        """(number, text, or the error of a line that is too long)"""
        while True:
            try:
                text: str | Exception = next(self)
            except StopIteration:
                return
            except csv.Error as error:
                text = error
            yield self.number, text


def read_jsonl(lines: Lines) -> Iterator[RawRow]:
    """Rows of JSON Lines: an object per line. Null leaves a field unset."""
    for number, text in lines.numbered():
        if isinstance(text, Exception):
            yield number, text, {}
        elif text.strip():
            yield number, _parse_object(text), {}


def _parse_object(text: str) -> dict[str, Any] | Exception:
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except RequestError as error:
        return error
    except RecursionError:
        return RequestError("the line is nested too deeply; a request is a flat object")
    except ValueError as error:
        is_syntax = isinstance(error, json.JSONDecodeError)
        reason = f"{error.msg} at column {error.colno}" if is_syntax else "a number is too long"
        return RequestError(f'the line is not JSON ({reason}); write {{"prompt": "..."}}')
    if not isinstance(value, dict):
        return RequestError('the line is not a JSON object; write {"prompt": "..."}')
    return {key: item for key, item in value.items() if item is not None}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises RequestError for a key that it has twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{twice} is given twice; keep one of them")
    return found


def read_text(lines: Lines) -> Iterator[RawRow]:
    """Rows of plain text: a prompt per line, options after ` -- `, comments after `#`."""
    for number, text in lines.numbered():
        if isinstance(text, Exception):
            yield number, text, {}
        elif (stripped := text.strip()) and not stripped.startswith("#"):
            yield number, _split_options(stripped), {}


def _split_options(text: str) -> dict[str, Any] | Exception:
    """The fields of `a cat -- --seed 7`. `\\#` at the start is a #, and `\\--` between blanks is a --."""
    prompt, *rest = re.split(r"(?:^|\s)--(?=\s|$)", text, maxsplit=1)
    mark, options = bool(rest), "".join(rest)
    prompt = re.sub(r"(?<!\S)\\--(?!\S)", "--", prompt.strip().removeprefix("\\") if text[:2] == "\\#" else prompt)
    try:
        if not mark:
            return {"prompt": prompt}
        if options.strip() and not options.lstrip().startswith("-"):
            return RequestError(
                f"options begin with -, not {options.strip()[:40]!r}; in a prompt write \\-- for a lone --"
            )
        return {**({"prompt": prompt} if prompt else {}), **parse_options(shlex.split(options))}
    except RequestError as error:
        return error
    except ValueError as error:  # from shlex
        return RequestError(f"the options cannot be read ({str(error).lower()}); close every quotation mark")


def read_csv(lines: Lines) -> Iterator[RawRow]:
    """Rows of a table of comma-separated values with a header."""
    reader = csv.reader(lines, strict=True)  # without strict, an unclosed quotation mark swallows all later lines
    yield from _read_table(_csv_cells(reader, lines))


def _csv_cells(reader: Iterator[list[str]], lines: Lines) -> Iterator[tuple[int, list[str] | Exception]]:
    while True:
        start = lines.number + 1
        try:
            record: list[str] | Exception = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"lines {start} to {lines.number}" if lines.number > start else "the line"
            record = RequestError(f"{where} cannot be read as CSV ({error}); close every quotation mark")
        yield start, record


def read_tsv(lines: Lines) -> Iterator[RawRow]:
    """Rows of a table of tab-separated values with a header."""
    yield from _read_table(
        (number, text if isinstance(text, Exception) else [_unquote(cell) for cell in text.split("\t")])
        for number, text in lines.numbered()
    )


def _unquote(cell: str) -> str:
    """A cell without the quotation marks that a spreadsheet adds around it. All other marks belong to the text."""
    inner = cell[1:-1].replace('""', "")
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner:
        return cell[1:-1].replace('""', '"')
    return cell


def _read_table(records: Iterable[tuple[int, list[str] | Exception]]) -> Iterator[RawRow]:
    """Rows from (line number, cells). The first ones are the header, whose names are case-insensitive."""
    header: list[str] | None = None
    for line, record in records:
        if isinstance(record, Exception):
            if header is None:
                raise InputError(f"the header: {record}")
            yield line, record, {}
        elif not any(cell.strip() for cell in record):
            continue
        elif header is None:
            header = _parse_header(record)
        elif len(record) > len(header):
            yield line, RequestError(f"the line has {len(record)} cells for {len(header)} columns; quote commas"), {}
        else:
            yield line, *_split_columns(dict(zip(header, record, strict=False)))


def _parse_header(names: list[str]) -> list[str]:
    """The names of the columns; names of fields in the spelling of Request. Raises InputError for a bad header."""
    fields = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in names]
    header = [field if field in READABLE else name.strip() for field, name in zip(fields, names, strict=True)]
    header = [name or f"column {place}" for place, name in enumerate(header, start=1)]  # spreadsheets leave empty ones
    if "prompt" not in header:
        semicolons = any(";" in name for name in names)
        fix = "separate the columns with commas" if semicolons else "give the column of prompts this name"
        shown = ", ".join(map(repr, names))[:120]
        raise InputError(f"no column 'prompt' in the header ({shown}); {fix}")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError(f"two columns are named {twice!r}; rename one")
    return header


def _split_columns(cells: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(fields, other columns) from cells by column. An empty cell leaves its field unset."""
    fields, columns = {}, {}
    for name, value in cells.items():
        if name not in READABLE:
            columns[name] = value
        elif value is not None and value != value:  # NaN: a gap in a table of numbers
            continue
        elif value is not None and (name == "prompt" or not isinstance(value, str) or value.strip()):
            fields[name] = parse_value(name, value)
    return fields, columns


def read_parquet(path: Path, name: str) -> Iterator[RawRow]:
    """Rows of a Parquet file. name: the file's, for error messages. Raises InputError for a damaged file."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'unclip[parquet]', or save the file as CSV") from None
    try:
        with pq.ParquetFile(path) as file:
            header = _parse_header(file.schema_arrow.names)
            line = 0
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    line += 1
                    fields, columns = _split_columns(dict(zip(header, record.values(), strict=True)))
                    yield line, fields, {key: _json_value(value) for key, value in columns.items()}
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{name} cannot be read as Parquet ({' '.join(str(error).split())[:120]})") from None


def _json_value(value: Any) -> Any:
    """A cell as a JSON value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"options: {message}; write them as on the command line")


@functools.cache
def _options() -> argparse.ArgumentParser:
    parser = _Options(prog="", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in READABLE:
        if name != "prompt":
            parser.add_argument("-n" if name == "n" else f"--{name.replace('_', '-')}", dest=name)
    return parser
