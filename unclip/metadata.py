"""What made an image, written into its PNG file and read back.

The record is one JSON object in the PNG text chunk "unclip": {"version", "model", "revision", "seed", "request",
"score", "notes"}. It holds nothing that differs between two runs of one request (no times, no paths).
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from unclip import __version__
from unclip.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from unclip.request import Result

KEY = "unclip"
MAX_BYTES = 1 << 20  # of the record
_MAX_CHUNKS = 100_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def record(result: Result) -> dict[str, Any]:
    """The record of a result, as JSON values."""
    return {
        "version": __version__,
        "model": result.model,
        "revision": result.revision,
        "seed": result.seed,
        "request": result.request.to_dict(),
        "score": result.score,
        "notes": list(result.notes),
    }


def png_bytes(image: Image.Image, record: dict[str, Any]) -> bytes:
    """`image` as a PNG file with `record` in it."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(KEY, json.dumps(record, allow_nan=False))  # ASCII, which every reader of text chunks takes
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def read(path: str | Path) -> dict[str, Any]:
    """The record in the PNG file at `path`. No pixel is decoded and the file is not trusted.

    Raises DataError if the file cannot be read, is no PNG, or holds no record.
    """
    try:
        with open(path, "rb") as file:
            text = _text_chunk(file, str(path))
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {str(path)!r} ({reason})") from error
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} holds a damaged record: it is not JSON") from error
    if not isinstance(found, dict):
        raise DataError(f"{str(path)!r} holds a damaged record: it is not a JSON object")
    return found


def _text_chunk(file: BinaryIO, name: str) -> str:
    """The text of the first tEXt chunk with our key (PNG specification, 5.3 and 11.3.3)."""
    if file.read(8) != _SIGNATURE:
        raise DataError(f"{name!r} is not a PNG file; the record of an image is kept in PNG files only")
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        prefix = KEY.encode() + b"\0"
        body = file.read(min(length, len(prefix))) if kind == b"tEXt" else b""
        if body == prefix:
            if length > MAX_BYTES:
                raise DataError(f"{name!r} holds a record of {length} bytes; at most {MAX_BYTES} are read")
            body += file.read(length - len(prefix))
            checksum = file.read(4)
            if len(checksum) < 4 or zlib.crc32(kind + body) != struct.unpack(">I", checksum)[0]:
                raise DataError(f"{name!r} is damaged: the checksum of its record does not match")
            return body[len(prefix) :].decode("latin-1")
        file.seek(length - len(body) + 4, io.SEEK_CUR)
    raise DataError(f"{name!r} holds no record of what made it; it was not made by unclip, or was saved again since")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
