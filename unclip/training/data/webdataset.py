"""List the samples of webdataset tar shards."""

import glob
import os
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from unclip.errors import DataError
from unclip.training.data.decode import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS, read_captions
from unclip.training.data.stored import Listing, Track, describe_unread, untracked

DECOMPRESSORS = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
MAX_RANGE = 1_000_000  # shards in one brace range


class _Member(NamedTuple):
    extension: str
    offset: int  # of the contents, in bytes from the start of the tar file
    size: int


_Group = dict[str, dict[str, _Member]]
"""The members of one webdataset key: name up to the last dot -> extension -> member."""


@dataclass(frozen=True, slots=True)
class TarSample:
    """An image of a tar shard. key: the members' name without its extension."""

    shard: Path
    key: str
    image_member: _Member
    caption_member: _Member

    @property
    def name(self) -> str:
        return f"{self.shard}, sample {self.key}"

    def image(self, limit: int = -1) -> bytes:
        size = self.image_member.size
        return self._read(self.image_member.offset, size if limit < 0 else min(size, limit))

    def captions(self) -> list[str]:
        extension, offset, size = self.caption_member
        return read_captions(self._read(offset, size), extension, self.name)

    def _read(self, offset: int, size: int) -> bytes:
        # Each read opens the shard again: workers share no file handle, and the number of shards is not limited.
        try:
            with self.shard.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise DataError(f"{self.shard}: cannot be read ({error.strerror}); restore the shard") from error
        if len(data) < size:
            raise DataError(f"{self.name}: cut off; the shard changed since it was opened, restore it")
        return data


def list_shards(paths: str | Path | Sequence[str | Path], track: Track = untracked) -> Listing:
    """The samples of uncompressed webdataset tar files.

    paths: a path, a glob, a numeric brace range ("train-{000..012}.tar") or a list of these. A sample is made of an
    image and a caption file of the same name: .txt or .caption (each non-empty line is a caption) or .json (with "text"
    or "caption"). If no names are the same, webdataset's convention holds: the members whose names are the same up to
    the first dot are one sample (0001.photo.jpg, 0001.title.txt). Each tar is scanned once for the offsets of its
    members. Raises DataError if there is no such shard or no sample.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    where = ", ".join(map(str, given))
    samples: list[TarSample] = []
    faults: list[str] = []
    unread: Counter[str] = Counter()
    shards = [shard for path in given for shard in _expand_pattern(str(path))]
    for shard in track(shards, "scanning shards"):
        groups: dict[str, _Group] = {}
        try:
            _read_index(shard, groups, unread, faults)
        except DataError as error:
            faults.append(str(error))
        for key, group in groups.items():
            samples += _group_samples(shard, key, group, faults, unread)
    if not samples and not faults:
        raise DataError(f"{where}: no samples; a sample is an image and a .txt, .caption or .json of the same name")
    return Listing(where, samples, tuple(faults), describe_unread(where, unread))


def _group_samples(shard: Path, key: str, group: _Group, faults: list[str], unread: Counter[str]) -> list[TarSample]:
    """The samples among the members of one webdataset key. Adds to `faults` and `unread` what belongs to none."""
    images = {name: member for name, members in group.items() if (member := _first(members, IMAGE_EXTENSIONS))}
    captions = {name: member for name, members in group.items() if (member := _first(members, CAPTION_EXTENSIONS))}
    paired = [name for name in images if name in captions]
    if paired:
        samples = [TarSample(shard, name, images.pop(name), captions.pop(name)) for name in paired]
    elif len(images) == len(captions) == 1:
        samples = [TarSample(shard, key, images.popitem()[1], captions.popitem()[1])]
    else:
        samples = []
    used = {member for sample in samples for member in (sample.image_member, sample.caption_member)}
    if key not in paired:  # else the rest are further fields of the sample, such as 0001.mask.png beside 0001.png
        faults += [f"{shard}, sample {name}: no caption; add {name}.txt or remove the image" for name in images]
        faults += [f"{shard}, sample {name}: a caption without an image; add it or remove it" for name in captions]
        used |= {*images.values(), *captions.values()}
    others = (member for members in group.values() for member in members.values() if member not in used)
    unread.update(member.extension for member in others)
    return samples


def _first(members: dict[str, _Member], extensions: Sequence[str]) -> _Member | None:
    """The member with the first of some extensions that occurs."""
    return next((members[extension] for extension in extensions if extension in members), None)


def _expand_pattern(pattern: str) -> list[Path]:
    """The shards of a path, a glob or a brace range, in order. Raises DataError if there is none."""
    if found := re.search(r"\{(\d+)\.\.(\d+)\}", pattern):
        first, last = found.groups()
        numbers = range(int(first), int(last) + 1)
        if not numbers:
            raise DataError(f"{pattern}: the range {found.group()} is empty; write the smaller number first")
        if len(numbers) > MAX_RANGE:
            raise DataError(
                f"{pattern}: the range {found.group()} has more than {MAX_RANGE:,} shards; write a glob (*)"
            )
        names = (f"{pattern[: found.start()]}{n:0{len(first)}d}{pattern[found.end() :]}" for n in numbers)
        return [shard for name in names for shard in _expand_pattern(name)]
    if os.path.isfile(pattern):
        return [Path(pattern)]
    if not (matches := sorted(glob.glob(pattern, recursive=True))):
        raise DataError(f"{pattern}: no such shard; give local .tar files (download remote ones first)")
    return [Path(match) for match in matches]


def _read_index(shard: Path, groups: dict[str, _Group], unread: Counter[str], faults: list[str]) -> None:
    """Add the members of a shard to `groups`, by their name up to the first dot (webdataset's key).

    Links and members without an extension are counted in `unread`. Raises DataError for a damaged shard; the members
    before the damage have been added.
    """
    count = 0
    try:
        with shard.open("rb") as file:
            magic = file.read(8)
            for start, tool in DECOMPRESSORS.items():
                if magic.startswith(start):
                    raise DataError(f"{shard}: compressed; unpack it to a plain .tar first ({tool} {shard.name})")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    count += 1
                    tar.members = []  # pyright: ignore[reportAttributeAccessIssue] (else it keeps all of them)
                    _add_member(shard, member, groups, unread, faults)
                # tarfile reads a damaged header as the end of the archive; the true end is zeros or nothing.
                file.seek(tar.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise DataError(f"{shard}: damaged after {count} members; restore the shard")
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard}: not a readable tar file ({error}); restore or remove it") from error


def _add_member(
    shard: Path, member: tarfile.TarInfo, groups: dict[str, _Group], unread: Counter[str], faults: list[str]
) -> None:
    folder, slash, base = member.name.rpartition("/")
    if member.isdir() or base.startswith("."):  # hidden, such as the files that macOS adds
        return
    if not member.isfile():
        faults.append(f"{shard}: {member.name} is a link or a device; pack the file itself (tar --dereference)")
        return
    stem, dot, extension = base.rpartition(".")
    if not dot:
        unread[""] += 1
        return
    key, extension = base.partition(".")[0], extension.lower()
    members = groups.setdefault(folder + slash + key, {}).setdefault(folder + slash + stem, {})
    if extension in members:
        faults.append(f"{shard}: {member.name} occurs twice; rename or remove one")
        return
    members[extension] = _Member(extension, member.offset_data, member.size)
