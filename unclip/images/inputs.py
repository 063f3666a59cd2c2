"""The input files of a request: whether they can be read, and their hashes for the record."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unclip.errors import DataError, RequestError, one_line
from unclip.requests.fields import FILE_FIELDS
from unclip.requests.other_tools import check_no_weights
from unclip.requests.sources import EmbeddingBytes, check_is_no_file, source_kind

if TYPE_CHECKING:
    from unclip.requests.request import Request

SOURCES = "sources"


def input_files(request: Request) -> Iterator[tuple[str, Any]]:
    """(field, file or PIL image) of each input; sources that are prompts are left out."""
    for field in FILE_FIELDS:
        if (value := getattr(request, field)) is not None:
            yield field, value
    for source in request.sources or ():
        if source_kind(source) != "prompt":
            yield SOURCES, source


def check_inputs(request: Request, *, decode: bool = False) -> None:
    """Raise DataError or RequestError for an input that is missing or cannot be read, without a model.

    decode: also decode the pixels, which finds files that were cut off; otherwise only the headers are read.
    """
    for field, source in input_files(request):
        if isinstance(source, EmbeddingBytes):
            continue  # read by the model
        if field == "embedding" or source_kind(source) == "embedding":
            check_embedding_header(source)
        else:
            check = check_canvas_image if request.edits_canvas else check_square_image
            check(source, "image" if field == SOURCES else field, decode=decode)
    for source in request.sources or ():
        if source_kind(source) == "prompt":
            check_is_no_file(SOURCES, source)


def check_embeddable(source: Any, *, decode: bool = False) -> None:
    """Raise DataError or RequestError for a source that `unclip embed` cannot embed: an image or a prompt can be."""
    kind = source_kind(source)
    if kind == "embedding":
        raise RequestError(f"{source!r} is the name of an embedding file; give an image or a prompt")
    if kind == "prompt":
        check_is_no_file("prompt", source)
        check_no_weights("prompt", source)
    else:
        check_square_image(source, "image", decode=decode)


def check_canvas_image(source: Any, field: str, *, decode: bool) -> None:
    """Raise DataError for an image that cannot be read, or is too large to edit. The field names it in the error."""
    from unclip.images.reading import check_header, open_image

    (open_image if decode else check_header)(source, field)


def check_square_image(source: Any, field: str, *, decode: bool) -> None:
    """Raise DataError for an image that cannot be read. It may be large: only a small square of it is used."""
    from unclip.images.reading import check_header

    check_header(source, field, max_side=None)
    if decode:
        from unclip.images.processing import open_square  # imports torch

        open_square(source, "crop")


def check_embedding_header(path: str) -> None:
    """Raise DataError for a file that is no embedding, by its header; `embeddings.files` reads the rest."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys() if name in ("image_embed", "probe")]  # noqa: SIM118
    except Exception as error:  # beside SafetensorError, those of types that numpy does not have
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {path!r} as safetensors ({one_line(reason)})") from None
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) != 1:
        raise DataError(f"{path!r} holds no embedding; give a file that `unclip embed` wrote")


def input_hashes(request: Request) -> dict[str, Any]:
    """The hash of each input by field, "sources" as a list with None for prompts; empty without inputs."""
    found: dict[str, Any] = {field: input_hash(source) for field, source in input_files(request) if field != SOURCES}
    if request.sources is not None:
        hashes = [None if source_kind(source) == "prompt" else input_hash(source) for source in request.sources]
        found |= {SOURCES: hashes} if any(hashes) else {}
    return {field: value for field, value in found.items() if value is not None}


def input_hash(source: Any) -> str | None:
    """ "sha256:..." of a file, "pixels:..." of an image in memory, or None for a file that cannot be read."""
    if isinstance(source, EmbeddingBytes):
        return f"sha256:{hashlib.sha256(source.data).hexdigest()}"
    if not isinstance(source, str):
        from unclip.images.metadata import pixel_hash

        return f"pixels:{pixel_hash(source)}"
    try:
        with Path(source).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except (OSError, ValueError):
        return None


def is_same_input(path: str, recorded: Any) -> bool:
    """Whether a file is the input with this recorded hash. True if the record has none, as older ones."""
    if not isinstance(recorded, str):
        return True
    if recorded.startswith("pixels:"):
        from unclip.images.metadata import pixel_hash
        from unclip.images.reading import opened

        with opened(path, os.path.basename(path)) as image:
            return f"pixels:{pixel_hash(image)}" == recorded
    return input_hash(path) == recorded
