"""Webdataset tar shards as a dataset."""

import glob
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unclip.errors import DataError
from unclip.training.data.decode import IMAGE_EXTENSIONS, json_object, row_captions, text_lines
from unclip.training.data.stored import CaptionedImages, check_pairs

DECOMPRESSORS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}


class _Member(NamedTuple):
    extension: str
    offset: int  # of the contents, in bytes from the start of the tar file
    size: int


class _TarSample(NamedTuple):
    shard: Path
    key: str
    image: _Member
    caption: _Member


class TarShards(CaptionedImages):
    """The samples of uncompressed webdataset tar files, shuffled across all shards.

    paths: a path, a glob, a numeric brace range ("train-{000..012}.tar") or a list of these. A sample is made of the
    members that share a name up to the first dot: an image, and a .txt (each non-empty line is a caption) or a .json
    with "text" or "caption". Each tar is scanned once for the offsets of its members. Each read then opens the shard
    again, so that worker processes share no file handle and the number of shards is not limited. Raises DataError if a
    shard cannot be read, an image has no caption or a caption has no image.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], size: int, seed: int):
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        shards = [shard for path in given for shard in _expand_pattern(str(path))]
        self._samples: list[_TarSample] = []
        uncaptioned, imageless = [], []
        for shard in shards:
            for key, members in _read_index(shard).items():
                image = next((members[e] for e in IMAGE_EXTENSIONS if e in members), None)
                caption = members.get("txt", members.get("json"))
                if image is not None and caption is not None:
                    self._samples.append(_TarSample(shard, key, image, caption))
                elif image is not None:
                    uncaptioned.append(f"{shard}, sample {key}")
                elif caption is not None:
                    imageless.append(f"{shard}, sample {key}")
        where = ", ".join(map(str, given))
        check_pairs(where, uncaptioned, imageless)
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


def _expand_pattern(pattern: str) -> list[Path]:
    """The shards of a path, a glob or a brace range, in order. Raises DataError if there is none."""
    if found := re.search(r"\{(\d+)\.\.(\d+)\}", pattern):
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        names = [f"{pattern[: found.start()]}{n:0{len(first)}d}{pattern[found.end() :]}" for n in numbers]
        if not names:
            raise DataError(f"{pattern}: the range {found.group()} is empty; write the smaller number first")
        return [shard for name in names for shard in _expand_pattern(name)]
    if os.path.isfile(pattern):
        return [Path(pattern)]
    if not (matches := sorted(glob.glob(pattern, recursive=True))):
        raise DataError(f"{pattern}: no such shard; give local .tar files (download remote ones first)")
    return [Path(match) for match in matches]


def _read_index(shard: Path) -> dict[str, dict[str, _Member]]:
    """Find the members of a shard: sample key -> extension -> member. Raises DataError for a damaged shard."""
    samples: dict[str, dict[str, _Member]] = {}
    try:
        with shard.open("rb") as file:
            magic = file.read(8)
            for start, tool in DECOMPRESSORS.items():
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
                        raise DataError(f"{shard}: {member.name} occurs twice; rename or remove one")
                    samples[key][extension] = _Member(extension, member.offset_data, member.size)
                # tarfile reads a damaged header as the end of the archive; the true end is zeros or nothing.
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise DataError(f"{shard}: damaged after {len(samples)} samples; restore the shard")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable tar file ({error}); restore or remove it") from error
    return samples
