"""errors.jsonl: one line per line of a prompt file, or image, that failed in the last run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unclip.batch.manifest import PRIVATE
from unclip.batch.storage import disk_full
from unclip.system.json_values import parse_json

ERRORS = "errors.jsonl"


class ErrorFile:
    """The errors.jsonl of an output folder, and the bad lines in it that later runs need.

    folder: of the file. name: of the output folder, for messages.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / ERRORS
        self._bad_lines = folder / PRIVATE / "bad-lines.jsonl"
        self._scratch = folder / PRIVATE / "tmp"
        self._name = name
        self._file: Any = None

    def add(self, fields: dict[str, Any]) -> None:
        """Add a line. Raises WriteError if it cannot be written."""
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            self._file.write(json.dumps(fields).encode() + b"\n")
        except OSError as error:
            raise disk_full(error, self._name) from error

    def keep_bad_lines(self) -> None:
        """Keep a copy of the file, which has the bad lines of the prompt file, for runs that do not check it again."""
        copy = self._scratch / "bad-lines.tmp"
        if self._path.exists():
            shutil.copyfile(self._path, copy)
        else:
            copy.touch()
        os.replace(copy, self._bad_lines)

    def bad_lines(self) -> Iterator[dict[str, Any]]:
        """The bad lines of the prompt file that an earlier run has kept. Raises OSError and ValueError for damage."""
        with self._bad_lines.open("rb") as lines:
            for line in lines:
                yield parse_json(line)

    def remove(self) -> None:
        """Remove the file of an earlier run."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
