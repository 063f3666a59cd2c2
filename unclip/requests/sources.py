"""Tell images, embeddings and prompts apart."""

import os
from pathlib import Path
from typing import Any

from unclip.errors import RequestError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
EMBEDDING_SUFFIX = ".safetensors"


def source_kind(source: Any) -> str:
    """The kind of a source: an "image" or an "embedding" (files, by their suffix), or a "prompt".

    Anything but text is an image in memory.
    """
    if not isinstance(source, str):
        return "image"
    suffix = Path(source).suffix.lower()
    if suffix == EMBEDDING_SUFFIX:
        return "embedding"
    return "image" if suffix in IMAGE_SUFFIXES else "prompt"


def check_is_prompt(text: str) -> None:
    """Raise RequestError for the name of an existing file whose format is not read. A word alone is a prompt."""
    if Path(text).suffix and os.path.isfile(text):
        raise RequestError(f"{text!r} is a file of a format that is not read; give a PNG, JPEG or WebP, or a prompt")
