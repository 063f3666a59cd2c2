"""PNG files as chunks (PNG specification, third edition, sections 5.3 and 5.6)."""

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_MAX_CHUNKS = 100_000  # the largest image that Pillow opens has some 65,000, of 8 KiB each
_MAX_KEPT = 8  # chunks of metadata, of which a sound file has at most one of each kind
_MAX_METADATA = 1 << 20  # bytes of one chunk, compressed or not; Pillow refuses a file with more
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_ORIENTATION_TEXTS = (b"XML:com.adobe.xmp", b"Raw profile type exif")
_DAMAGED_PROFILE = b"damaged\0\0" + zlib.compress(b"")


class Chunk(NamedTuple):
    """A chunk of a PNG file. start, length: of its data in the file, in bytes; its checksum follows."""

    kind: bytes
    start: int
    length: int


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """The chunks of a PNG file, up to its end chunk. Only their heads are read. The file has a PNG's signature."""
    start = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield Chunk(kind, start + 8, length)
        if kind == b"IEND":
            return
        start += 8 + length + 4


def read_chunk(file: BinaryIO, chunk: Chunk) -> bytes | None:
    """The data of a chunk; None if its checksum does not match."""
    file.seek(chunk.start)
    data, checksum = file.read(chunk.length), file.read(4)
    return data if checksum == struct.pack(">I", zlib.crc32(chunk.kind + data)) else None


def open_pixels(file: BinaryIO) -> BinaryIO:
    """A PNG file reduced to its pixels, its colour profile and its orientation, as a PNG file.

    Pillow refuses a whole image for one chunk of another program that is damaged or long, wherever it is in the file;
    here, such chunks are missing. A damaged profile is empty. The orientation comes before the pixels, so that it is
    known without decoding them.
    """
    metadata: list[bytes] = []
    pixels: list[bytes | range] = []
    end = file.seek(0, io.SEEK_END)
    for chunk in chunks(file):
        if chunk.kind in _PIXELS:
            first, last = chunk.start - 8, min(end, chunk.start + chunk.length + 4)
            before = pixels[-1] if pixels else None
            if isinstance(before, range) and before.stop == first:
                pixels[-1] = range(before.start, last)
            else:
                pixels.append(range(first, last))
        elif len(metadata) == _MAX_KEPT:
            continue
        elif chunk.kind == b"iCCP":
            metadata.append(_encode(b"iCCP", _profile(file, chunk)))
        elif chunk.kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt") and (data := _orientation(file, chunk)):
            metadata.append(_encode(chunk.kind, data))
    header = pixels[:1]  # a range from IHDR on; what follows it comes after the metadata
    if header and isinstance(header[0], range):
        split = header[0].start + 8 + 13 + 4
        header, pixels[0] = [range(header[0].start, split)], range(split, max(split, header[0].stop))
    parts = [SIGNATURE, *header, *metadata, *pixels]  # without an end chunk, which Pillow does not need
    return io.BufferedReader(_Parts(file, parts))  # pyright: ignore[reportArgumentType]  # reads raw files of any kind


def _profile(file: BinaryIO, chunk: Chunk) -> bytes:
    """The data of an iCCP chunk that Pillow can read: with an empty profile for a damaged or too long one."""
    data = read_chunk(file, chunk) if chunk.length <= _MAX_METADATA else None
    name, _, rest = (data or b"").partition(b"\0")
    return _DAMAGED_PROFILE if data is None or not name or not _inflates(rest) else data


def _orientation(file: BinaryIO, chunk: Chunk) -> bytes | None:
    """The data of a chunk that may hold the orientation; None for other ones, and for damaged and long ones."""
    if chunk.length > _MAX_METADATA:
        return None
    if chunk.kind == b"eXIf":
        return read_chunk(file, chunk)
    file.seek(chunk.start)
    key, _, _ = file.read(min(chunk.length, 80)).partition(b"\0")
    if key not in _ORIENTATION_TEXTS or (data := read_chunk(file, chunk)) is None:
        return None
    rest = data[len(key) + 1 :]
    if chunk.kind == b"iTXt" and rest[:1] != b"\0":  # compressed XMP: no program writes it
        return None
    return data if chunk.kind != b"zTXt" or _inflates(rest) else None


def _inflates(compressed: bytes) -> bool:
    """Whether a method byte and a zlib stream decode to at most _MAX_METADATA bytes."""
    if compressed[:1] != b"\0":
        return False
    try:
        found = zlib.decompressobj()
        found.decompress(compressed[1:], _MAX_METADATA)
    except zlib.error:
        return False
    return found.eof


def _encode(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


class _Parts(io.RawIOBase):
    """A file that consists of bytes and of ranges of another file, one after the other."""

    def __init__(self, file: BinaryIO, parts: Sequence[bytes | range]) -> None:
        self._file, self._parts = file, parts
        self._starts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + len(part))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        if self._at >= self._starts[-1]:
            return 0
        i = bisect_right(self._starts, self._at) - 1
        part, skip = self._parts[i], self._at - self._starts[i]
        count = min(len(buffer), len(part) - skip)
        if isinstance(part, range):
            self._file.seek(part.start + skip)
            data = self._file.read(count)
        else:
            data = part[skip : skip + count]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
