"""Decode stored images and captions. Anything damaged is a DataError that names the file."""

import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unclip.errors import DataError
from unclip.images.pixels import to_srgb_on_white
from unclip.images.reading import opened, upright
from unclip.requests.sources import IMAGE_SUFFIXES

Sample = tuple[torch.Tensor, str] | tuple[torch.Tensor, str, torch.Tensor]
"""An image (uint8 `3 h w`), its caption, and for a decoder of layouts its layout (float32 `l`)."""

IMAGE_EXTENSIONS = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
CAPTION_EXTENSIONS = ("txt", "caption", "json")
"""Extensions of caption files; if an image has several such files, the first in this order is read."""
HEADER = 1 << 14  # bytes; most headers end before


def decode_image(data: bytes, name: str, size: int) -> torch.Tensor:
    """Decode an image file to an upright, square RGB uint8 tensor `3 size size`.

    The shorter side is resized to `size` pixels (bicubic, antialiased), the longer one is cropped to its centre.
    Colours are converted to sRGB, and transparency is composited on white. Of an animation, the first image is used.

    name: the file, for messages. Raises DataError for a damaged image, for other formats and for an image above
    Pillow's pixel limit.
    """
    with opened(io.BytesIO(data), name) as image:
        image.draft(None, (3 * size, 3 * size))  # a large JPEG decodes at 1/2, 1/4 or 1/8 of its size
        square = _centre_square(to_srgb_on_white(upright(image), name)[0], size)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()  # 3 h w


def check_header(read: Callable[[int], bytes], name: str) -> None:
    """Read the header of an image file; no pixels are decoded.

    read: returns at most that many bytes from the start of the file, or with -1 all of it. Raises DataError as
    `decode_image` does, for what the header shows.
    """
    for limit in (HEADER, -1):
        try:
            with opened(io.BytesIO(read(limit)), name):
                return
        except DataError:
            if limit == -1:
                raise


def _centre_square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` pixels and keep the centre of the longer one."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    # Resizing only the box resizes and crops at once: the rest of a long strip is never computed.
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def read_captions(data: bytes, extension: str, name: str) -> list[str]:
    """The captions in a caption file: the "text" or "caption" of a .json, or the non-empty lines of another file.

    name: the file, for messages. Raises DataError for damaged text, and if there is no caption.
    """
    captions = row_captions(json_object(data, name), name) if extension == "json" else text_lines(data, name)
    if not captions:
        raise DataError(f"{name}: the caption is empty; write one or remove the image")
    return captions


def text_lines(data: bytes, name: str) -> list[str]:
    """The non-empty lines of a UTF-8 text. name: the file, for messages. Raises DataError for other encodings."""
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise DataError(f"{name}: not UTF-8 text; save it as UTF-8") from None
    return [line for line in lines if line]


def json_object(data: str | bytes, name: str) -> dict[str, Any]:
    """A JSON object from text. Raises DataError for anything else."""
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise DataError(f'{name}: not a JSON object; write {{"caption": "..."}} on it')
    return row


def row_captions(row: Mapping[str, Any], name: str) -> list[str]:
    """The captions of a JSON object: its "text", else its "caption", a string or a list of strings.

    Raises DataError if neither is there.
    """
    value = next((row[key] for key in ("text", "caption") if row.get(key) is not None), None)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise DataError(f'{name}: needs "text" or "caption", a string or a list of strings')
    for text in values:
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can hold half of a surrogate pair, which no tokenizer takes
            raise DataError(f"{name}: the caption is not valid Unicode; write it again") from None
    return [text.strip() for text in values if text.strip()]


def read_bytes(path: Path, limit: int = -1) -> bytes:
    """The contents of a file, or its first `limit` bytes. Raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); restore or remove it") from error


def extension_of(name: str) -> str:
    """The extension of a file name, in lower case and without the dot; empty if there is none."""
    return os.path.splitext(name)[1][1:].lower()
