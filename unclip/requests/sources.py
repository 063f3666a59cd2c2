"""Tell images, embeddings and prompts apart."""

import os
from pathlib import Path
from typing import Any

from unclip.errors import RequestError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

EMBEDDING_SUFFIX = ".safetensors"


def source_kind(source: Any) -> str:
    """The kind of a source: an "image", an "embedding" (both files, by their suffix) or a "prompt"."""
    if not isinstance(source, str):
        return "image"
    suffix = Path(source).suffix.lower()
    if suffix == EMBEDDING_SUFFIX:
        return "embedding"
    return "image" if suffix in PICTURE_SUFFIXES else "prompt"


def check_is_prompt(text: str) -> None:
    """Raise RequestError for what is the name of a file, though not of one that is read."""
    if Path(text).suffix and os.path.isfile(text):  # a word may be a file's name, too
        raise RequestError(f"{text!r} is a file, and of no format that is read; give a PNG, JPEG or WebP, or a prompt")
