"""What was measured so far, in a file that is whole after every measure; and how it is told in text."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unclip.errors import InputError
from unclip.evaluation.intervals import text
from unclip.system.files import read_json, write_json

FILE = "report.json"
PICTURES = "pictures"


class Report:
    """Results by key. What is in the file already is not measured again.

    setup: what the results are of. A file of another setup is refused with InputError: its results do not compare.
    """

    def __init__(self, folder: Path, setup: Mapping[str, Any]):
        self.path = folder / FILE
        self.setup = json.loads(json.dumps(dict(setup)))  # as it will be read back
        self.results: dict[str, Any] = {}
        if self.path.is_file():
            self.results = self._held()
        elif (folder / PICTURES).exists():
            raise InputError(
                f"{folder / PICTURES} is of a report that is gone: choose another folder with -o, or remove it"
            )
        else:
            self._write()  # before any picture, so that none is taken for one of another setup

    def once(self, key: str, measure: Callable[[], Any]) -> Any:
        """The result of that key: the file's, or else what `measure` returns, which the file then has too."""
        if key not in self.results:
            self.results[key] = _plain(measure())
            self._write()
        return self.results[key]

    def put(self, key: str, result: Any) -> Any:
        """The result, which takes the place of what the file had of that key."""
        self.results.pop(key, None)
        return self.once(key, lambda: result)

    def _held(self) -> dict[str, Any]:
        held = read_json(self.path)
        setup, results = held.get("setup"), held.get("results")
        if not isinstance(setup, dict) or not isinstance(results, dict):
            raise InputError(f"{self.path} is no report: choose another folder with -o, or move it away")
        for name, value in self.setup.items():
            if setup.get(name) != value:
                raise InputError(
                    f"{self.path} is a report with {name} {setup.get(name)!r}, not {value!r}: "
                    "choose another folder with -o, or move it away"
                )
        return results

    def _write(self) -> None:
        write_json(self.path, {"setup": self.setup, "results": self.results})


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of one or more columns, named by the rows' own keys, in lines of text."""
    cells = [columns(rows), *([text(row.get(name)) for name in columns(rows)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the columns of a table, in the order in which the rows name them first."""
    return list(dict.fromkeys(name for row in rows for name in row))


def told(title: str, result: Mapping[str, Any]) -> str:
    """A part's result as a paragraph: its title, its table, its notes."""
    notes = [f"  {note}" for note in result.get("notes", ())]
    return "\n".join([title, *([table(result["rows"])] if result.get("rows") else []), *notes])


def _plain(value: Any) -> Any:
    """As JSON has it: lists for tuples, null for what is no number."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
