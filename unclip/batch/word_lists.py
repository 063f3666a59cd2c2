"""Word lists: `__animals__` in a prompt is one of the lines of animals.txt in a folder of lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unclip.batch import wildcards
from unclip.batch.lines import Lines
from unclip.errors import InputError, RequestError, did_you_mean

FOLDER = "wildcards"
"""Default name of the folder, beside the prompt file or in the working folder."""
MAX_BYTES = 1 << 24  # of a list, which is kept in memory


class WordLists:
    """The lists of a folder, each read once: WordLists(folder)(name) -> Choice, as `wildcards.parse` takes it.

    A list is a text file with an option per line; blank lines and lines that begin with # are left out. The options may
    have wildcards, and name other lists. A list in a subfolder is named as `__people/jobs__`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, wildcards.Choice] = {}
        self._open: list[str] = []  # the lists that name each other, outermost first

    def __call__(self, name: str) -> wildcards.Choice:
        """The choice of the options of a list. Raises RequestError for a list that is missing, empty or circular."""
        if name not in self._read:
            if name in self._open:
                circle = ", ".join(f"__{one}__" for one in [*self._open[self._open.index(name) :], name])
                raise RequestError(f"prompt names word lists that contain each other ({circle}); break the circle")
            self._open.append(name)
            try:
                options = tuple(self._options(name))
            finally:
                self._open.pop()
            if not options:
                raise RequestError(f"prompt names __{name}__, and {self._path(name)} is empty; write an option a line")
            self._read[name] = wildcards.Choice(options, is_list=True)
        return self._read[name]

    @property
    def is_used(self) -> bool:
        """Whether a prompt has named a list."""
        return len(self._read) > 0

    def names(self) -> list[str]:
        """The names of all lists."""
        found = (path.relative_to(self.folder).with_suffix("") for path in self.folder.rglob("*.txt"))
        return sorted(path.as_posix() for path in found)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def _options(self, name: str) -> Iterator[wildcards.Parts]:
        path = self._path(name)
        try:
            if path.stat().st_size > MAX_BYTES:
                raise RequestError(f"prompt names __{name}__, and {path} is larger than {MAX_BYTES >> 20} MB; split it")
            with path.open("rb") as stream:
                for number, line in Lines(stream).numbered():
                    yield from self._option(name, number, line)
        except FileNotFoundError:
            raise RequestError(f"prompt names __{name}__, {self._missing(name)}") from None
        except (OSError, InputError) as error:
            if isinstance(error, RequestError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise RequestError(f"prompt names __{name}__, and {path} cannot be read ({reason})") from None

    def _option(self, name: str, number: int, line: str | Exception) -> Iterator[wildcards.Parts]:
        """The option of a line, or nothing for a comment or a blank line."""
        if isinstance(line, Exception):
            raise RequestError(f"prompt names __{name}__, and line {number} of it cannot be read: {line}")
        text = line.strip()
        if not text or text.startswith("#"):
            return
        try:
            yield wildcards.parse(text, self).parts
        except RequestError as error:
            if str(error).startswith("prompt names "):  # of a list that this one names
                raise
            raise RequestError(f"prompt names __{name}__, whose line {number} is bad: {error}") from None

    def _missing(self, name: str) -> str:
        if not self.folder.is_dir():
            return f"a word list; write {name}.txt into a folder {FOLDER}, or give --wildcards FOLDER or --no-wildcards"
        near = did_you_mean(name, self.names()) if self.names() else "the folder has no lists"
        return f"and there is no {self._path(name)}; {near}"
