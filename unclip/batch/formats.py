"""Readers of JSON Lines, tables and Parquet. Each yields RawRows.

A line that cannot be read becomes a RawRow with an error, and the next line is read. Only damage to the whole file
raises InputError.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unclip.batch.lines import Lines, RawRow
from unclip.errors import InputError, RequestError
from unclip.requests.other_tools import is_readable, plain_name, typed_as
from unclip.requests.text_values import READABLE, parse_value
from unclip.requests.values import show


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
    given = [(field_name(key), item) for key, item in value.items() if item is not None]
    try:
        return _unique_keys(given)
    except RequestError as error:
        return error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict. Raises RequestError for a key that it has twice."""
    if twice := first_duplicate(name for name, _ in pairs):
        raise RequestError(f"{show(twice)[1:-1]} is given twice; keep one of them")
    return dict(pairs)


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
    header = [field_name(name) for name in names]
    header = [name or f"column {place}" for place, name in enumerate(header, start=1)]  # spreadsheets leave empty ones
    if "prompt" not in header:
        semicolons = any(";" in name for name in names)
        fix = "separate the columns with commas" if semicolons else "give the column of prompts this name"
        shown = ", ".join(map(repr, names[:20]))[:120]
        raise InputError(f"no column 'prompt' in the header ({shown}); {fix}")
    if twice := first_duplicate(header):
        raise InputError(f"two columns are named {show(twice)}; rename one")
    return header


def field_name(name: str) -> str:
    """The name of a column or key: a field's and another tool's in the spelling of a request, any other as it is."""
    plain = plain_name(name)
    return plain if plain in READABLE or is_readable(plain) else name.strip()


def first_duplicate(names: Iterable[str]) -> str | None:
    """The first name that was there before."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def _split_columns(cells: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(fields, other columns) from cells by column. An empty cell leaves its field unset."""
    fields, columns = {}, {}
    for name, value in cells.items():
        if name not in READABLE and not is_readable(name):
            columns[name] = value
        elif value is not None and value != value:  # NaN: a gap in a table of numbers
            continue
        elif value is not None and (name == "prompt" or not isinstance(value, str) or value.strip()):
            fields[name] = parse_value(typed_as(name), value)
    return fields, columns


class ParquetRows:
    """Rows of a Parquet file. name: the file's, for error messages. Raises InputError for a damaged file."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._line = 0  # of the last row that was read or left out

    def skip_to(self, line: int) -> None:
        """Go on with this row, from 1. Those before it are not converted."""
        self._line = max(self._line, line - 1)

    def __iter__(self) -> Iterator[RawRow]:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise InputError("Parquet needs pyarrow: pip install 'unclip[parquet]', or save the file as CSV") from None
        try:
            with pq.ParquetFile(self._path) as file:
                header = _parse_header(file.schema_arrow.names)
                end = 0
                for batch in file.iter_batches(batch_size=1024):
                    end += batch.num_rows
                    while self._line < end:
                        rest = batch.slice(batch.num_rows - (end - self._line)).to_pylist()
                        for line, record in enumerate(rest, start=self._line + 1):
                            if line != self._line + 1:  # rows are skipped
                                break
                            self._line = line
                            fields, columns = _split_columns(dict(zip(header, record.values(), strict=True)))
                            yield line, fields, {key: _json_value(value) for key, value in columns.items()}
        except InputError as error:
            raise InputError(f"{self._name}: {error}") from None
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{self._name} cannot be read as Parquet ({' '.join(str(error).split())[:120]})") from None


def _json_value(value: Any) -> Any:
    """A cell as a JSON value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
