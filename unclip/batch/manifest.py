"""The manifest of an output folder: one JSON object per image. It may be damaged: nothing in it is trusted."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from unclip.system.json_values import parse_json

MANIFEST = "manifest.jsonl"
PRIVATE = ".unclip"
"""The folder of an output folder's own files."""
RUN = "run.json"
"""The record of its runs (`batch.run_record`)."""


def _inside_the_folder(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name or not path.name:
        raise ValueError("it is not in the folder")
    if path.parts[0].casefold() == PRIVATE:
        raise ValueError("it is a file of the folder itself")
    return name


Hash64 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", strict=True)]


class Entry(BaseModel):
    """A line of the manifest, as far as it is read again.

    file      name in the folder, with "/" between its parts
    key       of the job (`jobs.job_key`), 16 hexadecimal digits
    bytes     size of the file
    sha256    of the file; older manifests have none
    pixels    hash of the pixels (`images.metadata.pixel_hash`)
    source    name of the prompt file; older manifests have none
    content   the job without its place in the prompt file (`jobs.content_key`); older manifests have none
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: Annotated[str, Field(strict=True), AfterValidator(_inside_the_folder)]
    key: Hash64
    bytes: Annotated[int, Field(strict=True, ge=0)]
    sha256: Annotated[str, Field(strict=True)] | None = None
    pixels: Annotated[str, Field(strict=True)] | None = None
    source: Annotated[str, Field(strict=True)] | None = None
    content: Hash64 | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    request: dict[str, Any] = {}
    timings: dict[str, Annotated[float, Field(allow_inf_nan=False, ge=0)]] = {}

    @property
    def prompt(self) -> str:
        """The prompt of the image."""
        return str(self.request.get("prompt", ""))


def parse_entry(line: bytes) -> Entry | None:
    """A line of a manifest, or None if it is damaged."""
    try:
        return Entry.model_validate(parse_json(line, finite=False))  # columns may hold any number
    except (ValueError, ValidationError):
        return None


def read_lines(folder: Path, start: int = 0) -> Iterator[tuple[bytes, Entry | None]]:
    """The lines of a folder's manifest, each as bytes and as an Entry; None for one that is damaged or blank.

    start: the byte to begin with.
    """
    try:
        with (folder / MANIFEST).open("rb") as manifest:
            manifest.seek(start)
            for line in manifest:
                yield line, parse_entry(line)
    except FileNotFoundError:
        return


def read_entries(folder: Path) -> Iterator[Entry]:
    """The entries of a folder's manifest, without damaged lines."""
    return (entry for _, entry in read_lines(folder) if entry is not None)


def mend_manifest(folder: Path, dropped: Sequence[Sequence[int]], size: int, is_cut_off: bool) -> None:
    """Remove lines from a manifest, atomically, and end its last line.

    dropped: the lines, as [first byte, first byte after them], in order. size: of the manifest, in bytes.
    """
    path = folder / MANIFEST
    if len(dropped) == 1 and dropped[0][1] == size:  # a killed run leaves them at the end
        with path.open("r+b") as file:
            file.truncate(dropped[0][0])
            os.fsync(file.fileno())
    elif dropped:
        replace_manifest(folder, _without(path, dropped))
    elif is_cut_off:
        with path.open("ab") as file:
            file.write(b"\n")


def replace_manifest(folder: Path, lines: Iterable[bytes]) -> None:
    """Replace a manifest, atomically."""
    new = folder / PRIVATE / "tmp" / MANIFEST
    with new.open("wb") as file:
        file.writelines(line if line.endswith(b"\n") else line + b"\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, folder / MANIFEST)


def _without(path: Path, dropped: Sequence[Sequence[int]]) -> Iterator[bytes]:
    """The lines of a file but those that begin in these ranges of bytes, which are in order."""
    place, ranges = 0, iter([*dropped, (math.inf, math.inf)])
    first, end = next(ranges)
    with path.open("rb") as file:
        for line in file:
            if place >= end:
                first, end = next(ranges)
            if place < first:
                yield line
            place += len(line)
