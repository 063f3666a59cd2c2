"""Tell images, embeddings and prompts apart."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unclip.errors import RequestError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
UNREAD_SUFFIXES = (".avif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".svg")
"""Suffixes of images whose formats are not read. A text that ends in one is no prompt."""
EMBEDDING_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class EmbeddingBytes:
    """The contents of a file of `unclip embed`, in memory. `Request.embedding` takes it in the place of a path."""

    data: bytes

    def __repr__(self) -> str:
        return "<embedding>"


def source_kind(source: Any) -> str:
    """The kind of a source: an "image" or an "embedding" (files, by their suffix), or a "prompt".

    Anything but text is an image in memory.
    """
    if not isinstance(source, str):
        return "image"
    kind = named_kind(source)
    return kind if kind in ("image", "embedding") else "prompt"


def named_kind(text: str) -> str | None:
    """The kind of file whose name a text ends like: "image", "embedding", or "unread", an image of another format."""
    suffix = os.path.splitext(text.strip())[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return "image"
    if suffix in UNREAD_SUFFIXES:
        return "unread"
    return "embedding" if suffix == EMBEDDING_SUFFIX else None


def check_is_no_file(name: str, text: str, folder: Path = Path()) -> None:
    """Raise RequestError for a text that is the name of an existing file: a shell writes such names in place of *.

    name: of the field. folder: that the name is relative to.
    """
    if text.strip() and os.path.isfile(folder / text):
        raise RequestError(f"{name} {text!r:.80} is the name of a file; say in words what to show")
