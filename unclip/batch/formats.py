"""The formats of prompt files: each reads its lines into (line, fields or what is wrong, other columns).

A line that cannot be read is handed on as the error it is, and the next one is read; only what spoils the whole file
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
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from unclip.batch.row import FIELDS, typed
from unclip.errors import InputError, RequestError
from unclip.requests.fields import OLD_NAMES

MAX_LINE = 1 << 20  # bytes

Found = tuple[int, dict[str, Any] | Exception, dict[str, Any]]
"""(line, fields or what is wrong, other columns)"""


def parse_options(words: Iterable[str]) -> dict[str, Any]:
    """Options as on the command line, such as ["--seed", "7", "-n", "2"] -> fields. Raises RequestError."""
    parsed = vars(_options().parse_args(list(words)))
    return {name: typed(name, value) for name, value in parsed.items()}


class Lines:
    """The lines of a byte stream as text, each ending with `end`; `number` is that of the last one handed out.

    Bytes that are not UTF-8 come as lone surrogates, which a Request refuses by field. A line that is too long raises
    csv.Error, and the next call goes on behind it.
    """

    def __init__(self, stream: BinaryIO, end: str = "") -> None:
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

    def each(self) -> Iterator[tuple[int, str | Exception]]:
        """(number, text or what is wrong)"""
        while True:
            try:
                text: str | Exception = next(self)
            except StopIteration:
                return
            except csv.Error as error:
                text = error
            yield self.number, text


def jsonl(lines: Lines) -> Iterator[Found]:
    for number, text in lines.each():
        if isinstance(text, Exception):
            yield number, text, {}
        elif text.strip():
            yield number, _object(text), {}


def _object(text: str) -> dict[str, Any] | Exception:
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except RequestError as error:
        return error
    except RecursionError:
        return RequestError("the line is nested too deeply; a request is a flat object")
    except ValueError as error:
        reason = getattr(error, "msg", None) or "a number is too long"
        place = f" at column {error.colno}" if hasattr(error, "colno") else ""
        return RequestError(f'the line is not JSON ({reason}{place}); write {{"prompt": "..."}}')
    if not isinstance(value, dict):
        return RequestError('the line is not a JSON object; write {"prompt": "..."}')
    return {key: item for key, item in value.items() if item is not None}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RequestError(f"{twice} is given twice; keep one of them")
    return found


def text(lines: Lines) -> Iterator[Found]:
    for number, text in lines.each():
        if isinstance(text, Exception):
            yield number, text, {}
        elif (stripped := text.strip()) and not stripped.startswith("#"):
            yield number, _prompt_and_options(stripped), {}


def _prompt_and_options(text: str) -> dict[str, Any] | Exception:
    """`a cat -- --seed 7` -> fields; `\\#` at the start and `\\--` between blanks stand for themselves."""
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
    except ValueError as error:  # of shlex
        return RequestError(f"the options cannot be read ({str(error).lower()}); close every quotation mark")


def csv_rows(lines: Lines) -> Iterator[Found]:
    reader = csv.reader(lines, strict=True)  # else a mark that is not closed takes in all lines that follow
    yield from _table(_csv_records(reader, lines))


def _csv_records(reader: Iterator[list[str]], lines: Lines) -> Iterator[tuple[int, list[str] | Exception]]:
    while True:
        start = lines.number + 1
        try:
            record: list[str] | Exception = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            spoilt = f"lines {start} to {lines.number}" if lines.number > start else "the line"
            record = RequestError(f"{spoilt} cannot be read as CSV ({error}); close every quotation mark")
        yield start, record


def tsv(lines: Lines) -> Iterator[Found]:
    yield from _table(
        (number, text if isinstance(text, Exception) else [_unquoted(cell) for cell in text.split("\t")])
        for number, text in lines.each()
    )


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that a spreadsheet puts around one; all other marks belong to the text."""
    inner = cell[1:-1].replace('""', "")
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner:
        return cell[1:-1].replace('""', '"')
    return cell


def _table(records: Iterable[tuple[int, list[str] | Exception]]) -> Iterator[Found]:
    """Records of cells, the first of which names the columns -> fields by name, case-insensitive."""
    header: list[str] | None = None
    for line, record in records:
        if isinstance(record, Exception):
            if header is None:
                raise InputError(f"the header: {record}")
            yield line, record, {}
        elif not any(cell.strip() for cell in record):
            continue
        elif header is None:
            header = _header(record)
        elif len(record) > len(header):
            yield line, RequestError(f"the line has {len(record)} cells for {len(header)} columns; quote commas"), {}
        else:
            yield line, *_cells(dict(zip(header, record, strict=False)))


def _header(names: list[str]) -> list[str]:
    known = {name: re.sub(r"[\s-]+", "_", name.strip().lower()) for name in names}
    fields = {name: OLD_NAMES.get(found, found) for name, found in known.items()}
    header = [fields[name] if fields[name] in FIELDS else name.strip() for name in names]
    header = [name or f"column {place}" for place, name in enumerate(header, start=1)]  # as spreadsheets leave behind
    if "prompt" not in header:
        semicolons = any(";" in name for name in names)
        fix = "separate the columns with commas" if semicolons else "name the column of the prompts so"
        shown = ", ".join(map(repr, names))[:120]
        raise InputError(f"no column 'prompt' in the header ({shown}); {fix}")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise InputError(f"two columns are named {twice!r}; rename one")
    return header


def _cells(cells: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Cells by column -> (fields, other columns); an empty cell leaves its field open."""
    fields, columns = {}, {}
    for name, value in cells.items():
        if name not in FIELDS:
            columns[name] = value
        elif value is not None and value != value:  # NaN: a gap in a table of numbers
            continue
        elif value is not None and (name == "prompt" or not isinstance(value, str) or value.strip()):
            fields[name] = typed(name, value)
    return fields, columns


def parquet(path: Path, name: str) -> Iterator[Found]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'unclip[parquet]', or save the file as CSV") from None
    try:
        with pq.ParquetFile(path) as file:
            header = _header(file.schema_arrow.names)
            line = 0
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    line += 1
                    fields, columns = _cells(dict(zip(header, record.values(), strict=True)))
                    yield line, fields, {key: _plain(value) for key, value in columns.items()}
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{name} cannot be read as Parquet ({' '.join(str(error).split())[:120]})") from None


def _plain(value: Any) -> Any:
    """A cell as a JSON value."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"options: {message}; they are named as on the command line")


@functools.cache
def _options() -> argparse.ArgumentParser:
    parser = _Options(prog="", add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name in FIELDS:
        if name != "prompt":
            flags = ["-n"] if name == "n" else [f"--{name.replace('_', '-')}"]
            old = [f"--{was}" for was, new in OLD_NAMES.items() if new == name]
            parser.add_argument(*flags, *old, dest=name)
    return parser
