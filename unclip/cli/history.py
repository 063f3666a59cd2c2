"""The history: what the commands for single images made on this machine, in one SQLite file of the user's."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.errors import DataError, InputError
from unclip.requests.fields import FILE_FIELDS
from unclip.requests.sources import source_kind

if TYPE_CHECKING:
    from unclip.images.result import Result

FILE = "history.db"
VARIABLE = "UNCLIP_HISTORY_FILE"
"""The variable that names another file."""
_TABLE = """
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,       -- seconds since 1970
    call TEXT NOT NULL,       -- the same for all images of a command
    file TEXT NOT NULL,       -- absolute path at that time
    folder TEXT NOT NULL,     -- working folder, to which the input files of the record are relative
    options TEXT NOT NULL,    -- JSON: the model and what was added to it, as given
    prompt TEXT NOT NULL,
    record TEXT NOT NULL      -- JSON, as in the image
)
"""
_BUSY = 5  # seconds to wait for another command that writes


@dataclass(frozen=True)
class Entry:
    """An image of the history.

    time     seconds since 1970
    file     where it was written, an absolute path
    options  the model and what was added to it: fields of `ModelOptions`, with absolute paths
    record   as in the image, with absolute paths of input files
    """

    id: int
    time: float
    file: str
    options: dict[str, Any]
    record: dict[str, Any]


def history_file() -> Path:
    """The file of the history: the one that UNCLIP_HISTORY_FILE names, or one in the user's data folder."""
    import platformdirs

    other = os.environ.get(VARIABLE)
    return Path(other) if other else Path(platformdirs.user_data_dir("unclip", appauthor=False)) / FILE


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, for one transaction. Raises DataError for a file that is none, or that cannot be written."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))  # prompts are private
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY)) as base, base:
            base.execute(_TABLE)
            yield base
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"the history {path} cannot be used ({reason}); move it away, or set history = false") from None


class History:
    """Adds the images of one command. Get the entries with `search` and `find`."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        """options: the model and what is added to it, as given on the command line."""
        self._path = path
        self._options = json.dumps({name: _absolute(value) for name, value in options.items()})
        self._call = f"{time.time_ns()}-{os.getpid()}"

    def add(self, file: Path, result: Result) -> None:
        """Add an image that was written. Raises DataError if the history cannot be written."""
        from unclip.images.result import record

        entry = (time.time(), self._call, str(file.absolute()), os.getcwd(), self._options)
        with opened(self._path) as base:
            base.execute(
                "INSERT INTO images (time, call, file, folder, options, prompt, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*entry, result.request.prompt, json.dumps(record(result))),
            )


def search(path: Path, words: list[str], limit: int) -> list[Entry]:
    """The newest entries whose file, prompt or record has all of the words, in any case; the newest first."""
    where = " AND ".join(["(file || ' ' || prompt || ' ' || record) LIKE ? ESCAPE '\\'"] * len(words)) or "1"
    patterns = [f"%{_escape(word)}%" for word in words]
    if not path.exists():
        return []
    with opened(path) as base:
        rows = base.execute(f"SELECT {_COLUMNS} FROM images WHERE {where} ORDER BY id DESC LIMIT ?", (*patterns, limit))
        return [_entry(row) for row in rows]


def find(path: Path, number: int) -> Entry:
    """The entry of a number. Raises InputError if there is none."""
    if path.exists():
        with opened(path) as base:
            for row in base.execute(f"SELECT {_COLUMNS} FROM images WHERE id = ?", (number,)):
                return _entry(row)
    raise InputError(f"the history has no image @{number}; `unclip log` lists them")


def clear(path: Path) -> int:
    """Delete all entries, and return their number. The images stay."""
    if not path.exists():
        return 0
    with opened(path) as base:
        count = base.execute("DELETE FROM images").rowcount
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY)) as base:
        base.execute("VACUUM")  # deleted rows stay in the file otherwise
    return count


_COLUMNS = "id, time, file, folder, options, record"


def _entry(row: tuple[Any, ...]) -> Entry:
    number, moment, file, folder, options, record = row
    return Entry(number, moment, file, json.loads(options), _from_folder(json.loads(record), Path(folder)))


def _from_folder(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The record with absolute paths of its input files, which are relative to a folder."""

    def path(value: Any) -> Any:
        return str(folder / value) if isinstance(value, str) and not value.startswith("<an image of ") else value

    request = dict(record["request"])
    for name in FILE_FIELDS:
        if request.get(name) is not None:
            request[name] = path(request[name])
    if request.get("sources") is not None:
        request["sources"] = [path(one) if source_kind(one) != "prompt" else one for one in request["sources"]]
    return {**record, "request": request}


def _absolute(value: Any) -> Any:
    """An option with absolute paths in place of relative ones that exist; FILE:SCALE of a LoRA file too."""
    if isinstance(value, list):
        return [_absolute(one) for one in value]
    if not isinstance(value, str):
        return value
    file, mark, scale = value.rpartition(":")
    if os.path.exists(value):
        return os.path.abspath(value)
    return f"{os.path.abspath(file)}{mark}{scale}" if mark and os.path.exists(file) else value


def _escape(word: str) -> str:
    """A word for LIKE, in which % and _ are themselves; JSON has other letters than ASCII as escapes."""
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
