"""A folder of images with captions as a dataset."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from unclip.errors import DataError
from unclip.training.data.decode import IMAGE_EXTENSIONS, json_object, read_bytes, row_captions, text_lines
from unclip.training.data.stored import CaptionedImages, check_pairs


class ImageFolder(CaptionedImages):
    """The images of a folder and its subfolders, with their captions.

    Captions come from `metadata.jsonl` at the top of the folder if there is one, else from text files. The metadata
    has one line per image, as in Hugging Face's imagefolder: {"file_name": "a/b.png", "text" or "caption": a string
    or a list}. A text file has the image's name with the suffix .txt, and each non-empty line is a caption. Hidden
    files are skipped. Raises DataError if an image has no caption or a caption has no image.
    """

    def __init__(self, path: str | Path, size: int, seed: int):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{path}: not a folder; give a folder of images with captions")
        files = _list_files(self.path)
        images = [name for name in files if _extension(name) in IMAGE_EXTENSIONS]
        if not images:
            raise DataError(f"{path}: no images (.{', .'.join(IMAGE_EXTENSIONS)}) in this folder")
        if "metadata.jsonl" in files:
            captions = self._from_metadata()
            imageless = sorted(set(captions) - set(images))
        else:
            texts = {name[:-4] for name in files if name.endswith(".txt")}
            wanted = {name: name.rpartition(".")[0] for name in images}
            found = [name for name in images if wanted[name] in texts]
            captions = {name: self._from_text(wanted[name] + ".txt") for name in found}
            imageless = [f"{stem}.txt" for stem in sorted(texts - set(wanted.values()))]
        check_pairs(str(path), [name for name in images if not captions.get(name)], imageless)
        self._items = [(name, captions[name]) for name in images]
        super().__init__(len(images), size, seed)

    def _from_text(self, name: str) -> list[str]:
        path = self.path / name
        return text_lines(read_bytes(path), str(path))

    def _from_metadata(self) -> dict[str, list[str]]:
        path = self.path / "metadata.jsonl"
        captions: dict[str, list[str]] = {}
        for number, line in enumerate(read_bytes(path).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            row = json_object(line, where)
            name = row.get("file_name")
            if not isinstance(name, str) or not name:
                raise DataError(f'{where}: needs "file_name", the path of an image in this folder')
            parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
            if PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor or ".." in parts:
                raise DataError(f"{where}: file_name {name!r} leaves the folder; give a path inside it")
            captions.setdefault(PurePosixPath(name).as_posix(), []).extend(row_captions(row, where))
        return captions

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        name, captions = self._items[item]
        return str(self.path / name), read_bytes(self.path / name), captions


def _list_files(root: Path) -> list[str]:
    """Relative posix paths of all files, sorted: item numbers must not depend on the file system's order."""
    names = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(folder).relative_to(root)
        names += [(here / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _extension(name: str) -> str:
    """The extension of a file name, in lower case and without the dot."""
    return name.rpartition(".")[2].lower()
