"""People's own pictures: a folder of images with captions beside them, or webdataset tar shards."""

import glob
import hashlib
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.training.images import (
    IMAGE_EXTENSIONS,
    Sample,
    decode_image,
    json_object,
    read_bytes,
    row_captions,
    text_lines,
)

UNPACKERS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class _Stored(Dataset[Sample]):
    """Stored images in a new order each epoch: index i is image `i % len` of epoch `i // len`.

    `len` is the number of images, hence of indices in one epoch; indices go on beyond it. When an image has
    several captions, (seed, i) draws one.
    """

    def __init__(self, count: int, size: int, seed: int):
        self.count, self.size, self.seed = count, size, seed
        self._order: tuple[int, torch.Tensor] | None = None  # the current epoch's permutation

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        """Name for messages, bytes of the image, captions."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(f"index {index}: data indices start at 0")
        epoch, place = divmod(index, self.count)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_number(self.seed, "epoch", epoch))
            self._order = (epoch, torch.randperm(self.count, generator=generator))
        name, data, captions = self._load(int(self._order[1][place]))
        if not captions:
            raise DataError(f"{name}: its caption is empty; write one or remove the image")
        caption = captions[_number(self.seed, "caption", index) % len(captions)]
        return decode_image(data, name, self.size), caption


class Folder(_Stored):
    """Images of a folder and its subfolders, with captions beside them.

    Captions come from `metadata.jsonl` at the top of the folder if there is one (a line an image, as
    Hugging Face's imagefolder: {"file_name": "a/b.png", "text" or "caption": a string or a list}), else
    from a .txt of the image's name, each non-empty line a caption. Hidden files are passed over. Raises
    DataError if an image has no caption or a caption no image.
    """

    def __init__(self, path: str | Path, size: int, seed: int):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{path}: not a folder; give a folder of images with captions")
        files = _files_below(self.path)
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
        _check_pairs(str(path), [name for name in images if not captions.get(name)], imageless)
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


def _files_below(root: Path) -> list[str]:
    """Relative posix paths of all files, sorted: item numbers must not hang on the file system's order."""
    names = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(folder).relative_to(root)
        names += [(here / name).as_posix() for name in files if not name.startswith(".")]
    return sorted(names)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


class _Member(NamedTuple):
    extension: str
    offset: int  # of the data, in bytes from the start of the tar file
    size: int


class _TarSample(NamedTuple):
    shard: Path
    key: str
    image: _Member
    caption: _Member


class Shards(_Stored):
    """Samples of uncompressed webdataset tar files, in random order over all of them.

    `paths` is a path, a glob, a numeric brace range ("train-{000..012}.tar") or a list of these. A sample
    is the members that share a name up to the first dot: an image and a .txt (each non-empty line a
    caption) or a .json with "text" or "caption". The tars are walked once for the offsets of their members;
    each read then opens its shard anew, so there is no handle for worker processes to share, nor a limit on
    the number of shards. Raises DataError if a shard cannot be read, an image has no caption or a caption
    no image.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], size: int, seed: int):
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        shards = [shard for path in given for shard in _expand(str(path))]
        self._samples: list[_TarSample] = []
        uncaptioned, imageless = [], []
        for shard in shards:
            for key, members in _index(shard).items():
                image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
                caption = members.get("txt", members.get("json"))
                if image is not None and caption is not None:
                    self._samples.append(_TarSample(shard, key, image, caption))
                elif image is not None:
                    uncaptioned.append(f"{shard}, sample {key}")
                elif caption is not None:
                    imageless.append(f"{shard}, sample {key}")
        where = ", ".join(map(str, given))
        _check_pairs(where, uncaptioned, imageless)
        if not self._samples:
            raise DataError(f"{where}: no samples; a sample is an image and a .txt or .json of the same name")
        super().__init__(len(self._samples), size, seed)

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        shard, key, image, caption = self._samples[item]
        name = f"{shard}, sample {key}"
        parts = []
        try:
            with shard.open("rb") as file:
                for member in (image, caption):
                    file.seek(member.offset)
                    parts.append(file.read(member.size))
        except OSError as error:
            raise DataError(f"{shard}: cannot be read ({error.strerror}); restore the shard") from error
        if len(parts[0]) < image.size or len(parts[1]) < caption.size:
            raise DataError(f"{name}: cut off; the shard changed since it was opened, restore it")
        if caption.extension == "txt":
            return name, parts[0], text_lines(parts[1], name)
        return name, parts[0], row_captions(json_object(parts[1], name), name)


def _expand(pattern: str) -> list[Path]:
    """The shards a path, a glob or a brace range stands for, in order."""
    if found := re.search(r"\{(\d+)\.\.(\d+)\}", pattern):
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        names = [f"{pattern[: found.start()]}{n:0{len(first)}d}{pattern[found.end() :]}" for n in numbers]
        if not names:
            raise DataError(f"{pattern}: the range {found.group()} is empty; write the smaller number first")
        return [shard for name in names for shard in _expand(name)]
    if os.path.isfile(pattern):
        return [Path(pattern)]
    if not (matches := sorted(glob.glob(pattern, recursive=True))):
        raise DataError(f"{pattern}: no such shard; give local .tar files (download remote ones first)")
    return [Path(match) for match in matches]


def _index(shard: Path) -> dict[str, dict[str, _Member]]:
    """Where the members of a shard lie: sample key -> extension -> member."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with shard.open("rb") as file:
            magic = file.read(8)
            for start, tool in UNPACKERS.items():
                if magic.startswith(start):
                    raise DataError(f"{shard}: compressed; unpack it to a plain .tar first ({tool} {shard.name})")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    folder, slash, base = member.name.rpartition("/")
                    stem, dot, extension = base.partition(".")
                    if not (member.isfile() and stem and dot):
                        continue
                    key, extension = folder + slash + stem, extension.lower()
                    if extension in samples.setdefault(key, {}):
                        raise DataError(f"{shard}: {member.name} is there twice; rename or remove one")
                    samples[key][extension] = _Member(extension, member.offset_data, member.size)
                # tarfile takes a damaged header for the end of the archive; the true end is zeros or nothing.
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise DataError(f"{shard}: damaged after {len(samples)} samples; restore the shard")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable tar file ({error}); restore or remove it") from error
    return samples


def _check_pairs(where: str, uncaptioned: list[str], imageless: list[str]) -> None:
    """One DataError for all images without a caption and all captions without an image."""
    faults = [
        f"{len(names)} {what} (first: {names[0]})"
        for names, what in ((uncaptioned, "without a caption"), (imageless, "without an image"))
        if names
    ]
    if faults:
        raise DataError(f"{where}: samples {' and '.join(faults)}; complete or remove them")


def _number(seed: int, purpose: str, counter: int) -> int:
    """63 random bits, a pure function of the arguments on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
