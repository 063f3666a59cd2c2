"""The lines of a prompt file, as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from gzip import GzipFile
from typing import Any, BinaryIO

from unclip.errors import InputError

MAX_LINE = 1 << 20  # characters

RawRow = tuple[int, dict[str, Any] | Exception, dict[str, Any]]
"""(line number, fields or the error, other columns); the fields may have old names, and those of other tools."""


class Lines:
    """The lines of a byte stream as text, each ending with `end`. `number` counts the lines that were read.

    A line ends with LF, CR LF or, as old Macs and some spreadsheets write, CR. Bytes that are not UTF-8 become lone
    surrogates; Request then refuses the field that has them. A line that is too long raises csv.Error; the next call
    returns the line after it.
    """

    def __init__(self, stream: BinaryIO | GzipFile, end: str = "") -> None:
        self._text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline=None)
        self._end = end
        self.number = 0

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if self.number == 0 and line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
            raise InputError("the file is UTF-16; save it as UTF-8")
        self.number += 1
        if len(line) > MAX_LINE:
            while not line.endswith("\n") and (line := self._text.readline(MAX_LINE)):
                pass
            raise csv.Error(f"the line is longer than {MAX_LINE:,} characters; shorten it")
        return line.removesuffix("\n") + self._end

    def skip_to(self, line: int) -> None:
        """Go on with this line, from 1. Those before it are not looked at."""
        read = self._text.readline
        for _ in range(line - 1 - self.number):
            text = read(MAX_LINE + 1)
            while len(text) >= MAX_LINE and not text.endswith("\n"):
                text = read(MAX_LINE)
        self.number = max(self.number, line - 1)

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
