"""The report of an evaluation: a JSON file that is complete after every measurement, and its text tables."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unclip.errors import InputError
from unclip.evaluation.intervals import format_value
from unclip.system.files import read_json, write_json

FILE = "report.json"
IMAGES = "pictures"  # the name of the folder in existing reports


class Report:
    """The results of an evaluation by key. Results that the file already has are not measured again.

    Args:
        folder: The folder of the report and its images.
        setup: The settings that the results depend on.
        writes: Whether this process writes the file; the other processes of a run only read it.

    Raises:
        InputError: the folder has a report of another setup, whose results cannot be compared, or images without one.
    """

    def __init__(self, folder: Path, setup: Mapping[str, Any], writes: bool = True):
        self.writes = writes
        self.path = folder / FILE
        self.setup = json.loads(json.dumps(dict(setup)))  # as it will be read back
        self.results: dict[str, Any] = {}
        if self.path.is_file():
            self.results = self._read()
        elif (folder / IMAGES).exists():
            raise InputError(
                f"{folder / IMAGES} has images of a report that no longer exists: "
                "choose another folder with -o, or remove it"
            )
        else:
            self._write()  # before any image, so that none can be mistaken for one of another setup

    def measure_once(self, key: str, measure: Callable[[], Any]) -> Any:
        """Return the stored result of a key; if there is none, call `measure` and store its result."""
        if key not in self.results:
            self.results[key] = _to_json(measure())
            self._write()
        return self.results[key]

    def replace(self, key: str, result: Any) -> Any:
        """Store the result of a key instead of an earlier one, and return it."""
        self.results.pop(key, None)
        return self.measure_once(key, lambda: result)

    def _read(self) -> dict[str, Any]:
        content = read_json(self.path)
        setup, results = content.get("setup"), content.get("results")
        if not isinstance(setup, dict) or not isinstance(results, dict):
            raise InputError(f"{self.path} is not a report: choose another folder with -o, or move it away")
        for name, value in self.setup.items():
            if setup.get(name) != value:
                raise InputError(
                    f"{self.path} is a report with {name} {setup.get(name)!r}, not {value!r}: "
                    "choose another folder with -o, or move it away"
                )
        return results

    def _write(self) -> None:
        if self.writes:
            write_json(self.path, {"setup": self.setup, "results": self.results})


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as lines of text, with a column for every key of the rows."""
    names = column_names(rows)
    cells = [names, *([format_value(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def column_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all rows, in the order of their first use."""
    return list(dict.fromkeys(name for row in rows for name in row))


def format_result(title: str, result: Mapping[str, Any]) -> str:
    """Return the result of a part as text: its title, its table, its notes."""
    notes = [f"  {note}" for note in result.get("notes", ())]
    return "\n".join([title, *([format_table(result["rows"])] if result.get("rows") else []), *notes])


def _to_json(value: Any) -> Any:
    """Return a value as JSON holds it: lists for tuples, None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
