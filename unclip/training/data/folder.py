"""List the images of a folder with their captions.

Captions come from metadata files, as in Hugging Face's imagefolder, else from a file with the image's name beside it.
"""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from unclip.errors import DataError
from unclip.training.data.decode import (
    CAPTION_EXTENSIONS,
    IMAGE_EXTENSIONS,
    extension_of,
    json_object,
    read_bytes,
    read_captions,
    row_captions,
)
from unclip.training.data.stored import Listing, count_extensions, describe_unread

METADATA = ("metadata.jsonl", "metadata.csv")
UNREAD_METADATA = "metadata.parquet"


@dataclass(frozen=True, slots=True)
class FolderSample:
    """An image of a folder. caption: the name of the file that has its captions, or the captions."""

    root: Path
    file: str
    caption: str | tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.root / self.file)

    def image(self, limit: int = -1) -> bytes:
        return read_bytes(self.root / self.file, limit)

    def captions(self) -> list[str]:
        if not isinstance(self.caption, str):
            return list(self.caption)
        path = self.root / self.caption
        return read_captions(read_bytes(path), extension_of(self.caption), str(path))


def list_folder(path: str | Path) -> Listing:
    """The images of a folder and its subfolders, with their captions.

    Linked folders are followed, each folder is read once, and hidden files are skipped. A `metadata.jsonl` or
    `metadata.csv` in any of the folders has one row per image: `file_name`, relative to the metadata's folder, and
    `text` or `caption`. An image that no row names has its captions in a file of the same name with the suffix .txt or
    .caption (each non-empty line is a caption) or .json (with "text" or "caption"). Raises DataError if there are no
    images.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{path}: not a folder; give a folder of images with captions")
    files, faults, notes = list_files(root)
    images = [name for name in files if extension_of(name) in IMAGE_EXTENSIONS]
    if not images and not faults:
        raise DataError(f"{path}: no images (.{', .'.join(IMAGE_EXTENSIONS)}) in this folder")
    tables = [name for name in files if PurePosixPath(name).name.lower() in METADATA]
    rows = _read_tables(root, tables, set(images), faults)
    texts = _caption_files(files)
    samples, used = [], set()
    for name in images:
        stem = name.rpartition(".")[0]
        beside = next((texts[stem, kind] for kind in CAPTION_EXTENSIONS if (stem, kind) in texts), None)
        used.add(stem)
        if captions := rows.get(name):
            samples.append(FolderSample(root, name, tuple(captions)))
        elif beside is not None:
            samples.append(FolderSample(root, name, beside))
        elif name in rows:
            faults.append(f"{root / name}: the caption is empty; write one or remove the image")
        else:
            faults.append(f"{root / name}: no caption; write it into {PurePosixPath(stem).name}.txt beside it")
    with_table = {str(PurePosixPath(name).parent) for name in tables}
    alone = [
        text
        for (stem, kind), text in texts.items()
        # Beside a metadata file, and in any .json, there may be other text than captions.
        if stem not in used and kind != "json" and with_table.isdisjoint(map(str, PurePosixPath(text).parents))
    ]
    faults += [f"{root / text}: a caption without an image; add the image or remove the file" for text in alone]
    faults += [
        f"{root / name}: not read; export it as metadata.jsonl or metadata.csv"
        for name in files
        if PurePosixPath(name).name.lower() == UNREAD_METADATA and str(PurePosixPath(name).parent) not in with_table
    ]
    read = {*images, *tables, *alone, *(sample.caption for sample in samples if isinstance(sample.caption, str))}
    unread = count_extensions(name for name in files if name not in read)
    return Listing(str(path), samples, tuple(faults), (*notes, *describe_unread(str(path), unread)))


def _caption_files(files: list[str]) -> dict[tuple[str, str], str]:
    """(name without its extension, extension in lower case) -> the name of a caption file; the first if two differ
    only in case."""
    found: dict[tuple[str, str], str] = {}
    for name in files:
        if (kind := extension_of(name)) in CAPTION_EXTENSIONS:
            found.setdefault((name.rpartition(".")[0], kind), name)
    return found


def _read_tables(root: Path, tables: list[str], images: set[str], faults: list[str]) -> dict[str, list[str]]:
    """The captions in metadata files, by image. Adds a line to `faults` for each row that cannot be used."""
    captions: dict[str, list[str]] = {}
    for table in tables:
        folder = PurePosixPath(table).parent
        try:
            for where, row in _read_rows(root / table):
                try:
                    row = json_object(row, where) if isinstance(row, bytes) else row
                    name = (folder / _file_name(row, where)).as_posix()
                    if name not in images:
                        raise DataError(f"{where}: a caption without an image; add {name!r} or remove the row")
                    captions.setdefault(name, []).extend(row_captions(row, where))
                except DataError as error:
                    faults.append(str(error))
        except DataError as error:
            faults.append(str(error))
    return captions


def _read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | bytes]]:
    """The rows of a metadata file: (file and line, columns or a line of JSON). Raises DataError for a damaged file."""
    data = read_bytes(path)
    if extension_of(path.name) == "csv":
        try:
            table = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
            for row in table:
                yield f"{path}, line {table.line_num}", {key.strip(): text for key, text in row.items() if key and text}
        except UnicodeDecodeError:
            raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from None
        except csv.Error as error:
            raise DataError(f"{path}: cannot be read as CSV ({error}); close every quotation mark") from None
        return
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _file_name(row: dict[str, Any], where: str) -> PurePosixPath:
    """The path of a row's image, relative to its table. Raises DataError if there is none or it leaves the folder."""
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f'{where}: needs "file_name", the path of an image in this folder')
    parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in parts:
        raise DataError(f"{where}: file_name {name!r} leaves the folder; give a path inside it")
    return PurePosixPath(name)


def list_files(root: Path) -> tuple[list[str], list[str], list[str]]:
    """The relative posix paths of all files in a folder and its subfolders, sorted; then faults, then notes.

    Hidden files are left out. Each folder is read once; links are followed after all real folders, so that a folder
    that is both linked and real keeps its real name. Parts that cannot be read are faults.
    """
    names, faults, notes = [], [], []
    above = {_identity(parent) for parent in root.resolve().parents}
    seen: set[tuple[int, int]] = set()
    folders, links = [""], []
    while folders or links:
        linked = not folders
        prefix = links.pop() if linked else folders.pop()
        try:
            identity = _identity(root / prefix)
            if identity in seen or identity in above:
                notes.append(f"{root / prefix}: this link is not followed; it leads to a folder that is read already")
                continue
            seen.add(identity)
            entries = list(os.scandir(root / prefix))
        except OSError as error:
            faults.append(f"{root / prefix}: cannot be read ({error.strerror}); allow it or remove the folder")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = root / prefix / entry.name  # unlike an entry's, its methods return False for a link to itself
            if path.is_dir():
                (links if entry.is_symlink() else folders).append(f"{prefix}{entry.name}/")
            elif path.is_file():
                names.append(prefix + entry.name)
            else:
                kind = "a broken link" if entry.is_symlink() else "not a regular file"
                faults.append(f"{path}: {kind}; restore or remove it")
        links.sort(reverse=True)
    return sorted(names), sorted(faults), notes


def _identity(folder: Path) -> tuple[int, int]:
    """The device and the number of a folder: equal for all paths that lead to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
