"""The request of an image from its record, with the input files that it names."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from unclip.checkpoints.locate import list_bundled_models
from unclip.cli import history
from unclip.errors import DataError, InputError, RequestError
from unclip.images import metadata
from unclip.images.inputs import SOURCES, check_inputs, input_files, is_same_input
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.system.choices import DTYPES

OPTIONS = {"image": "--image", "mask": "--mask", "embedding": "--embedding", SOURCES: "--source"}
_INPUT: Any = {"rich_help_panel": "Input files"}

Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP file made by unclip, or @12 of `unclip log`.")
]
InputImage = Annotated[
    str | None,
    typer.Option("--image", metavar="FILE", help="The image that was edited, if it is elsewhere now.", **_INPUT),
]
InputMask = Annotated[
    str | None, typer.Option("--mask", metavar="FILE", help="The mask, if it is elsewhere now.", **_INPUT)
]
InputEmbedding = Annotated[
    str | None, typer.Option("--embedding", metavar="FILE", help="The embedding, if it is elsewhere now.", **_INPUT)
]
InputSources = Annotated[
    list[str] | None,
    typer.Option(
        "--source", metavar="FILE", help="Sources of an interpolation, in order, if they are elsewhere now.", **_INPUT
    ),
]


@dataclass(frozen=True)
class Recorded:
    """A record, and where it is from.

    name     of the image, for messages
    file     of the image; None if it is gone
    options  the model and what was added to it as they were given, which only the history has
    """

    name: str
    record: dict[str, Any]
    file: str | None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def read_recorded(image: str) -> Recorded:
    """The record of a single image: a file, or @12, a number of the history.

    Raises DataError if it cannot be read, or is of a canvas; InputError for an unknown number.
    """
    if re.fullmatch(r"@\d{1,18}", image, re.ASCII):
        entry = history.find(history.history_file(), int(image[1:]))
        return Recorded(image, entry.record, entry.file if os.path.isfile(entry.file) else None, entry.options)
    record = metadata.read(image)
    if "canvas" in record:
        raise DataError(f"{image!r} is a canvas, whose parts were made by requests of their own; see `unclip show`")
    return Recorded(image, record, image)


def recorded_dtype(record: Mapping[str, Any]) -> str:
    """The precision that a record names; "auto" for none, and for an unknown one."""
    return record["dtype"] if record.get("dtype") in DTYPES else "auto"


def recorded_request(record: dict[str, Any], image: str) -> Request:
    """The request of a single image from its record. Raises DataError if there is none that can be run."""
    try:
        request = Request.from_dict(record.get("request"))  # pyright: ignore[reportArgumentType]  # checked there
    except RequestError as error:
        raise DataError(f"{image!r} has a record with an invalid request: {error}") from None
    if request.count != 1 or request.seed is None:
        raise DataError(f"{image!r} has a damaged record: it is not of one image with a seed")
    return request


def with_inputs(record: dict[str, Any], given: Mapping[str, Any], image: str) -> dict[str, Any]:
    """The record with other input files in its request. Raises InputError for an input that it does not have.

    given: a file by field, or None; for "sources" a list, one for each source that is not a prompt.
    """
    request = record.get("request")
    if not isinstance(request, dict):
        return record
    request = dict(request)
    for field, file in given.items():
        if file is None:
            continue
        if request.get(field) is None:
            raise InputError(f"{image!r} was made without {OPTIONS[field]}; leave it out")
        request[field] = file if field != SOURCES else replace_sources(request[field], file)
    return {**record, "request": request}


def replace_sources(sources: Any, files: Sequence[str]) -> list[Any]:
    """Replace the sources that are not prompts by other files. Raises InputError for another number of files."""
    known = sources if isinstance(sources, list) else []
    places = [i for i, source in enumerate(known) if is_in_memory(source) or source_kind(source) != "prompt"]
    if len(places) != len(files):
        raise InputError(f"--source was given {len(files)} times, and the record has {len(places)} files; name each")
    return [files[places.index(i)] if i in places else source for i, source in enumerate(known)]


def check_recorded_inputs(request: Request, image: str) -> None:
    """Raise DataError for an input that is not where the record says, or cannot be read."""
    for field, source in [*input_files(request), *((SOURCES, source) for source in request.sources or ())]:
        if is_in_memory(source):
            raise DataError(f"{image!r} was made from {source[1:-1]} in memory; give it by {OPTIONS[field]} FILE")
        if source_kind(source) != "prompt" and not os.path.isfile(source):
            raise DataError(f"{image!r} was made from {source!r}, which is not here; give it by {OPTIONS[field]} FILE")
    check_inputs(request, decode=True)


def changed_inputs(request: Request, record: dict[str, Any]) -> list[str]:
    """The inputs whose hash is not the recorded one, in words; older records have no hashes."""
    hashes = record.get("inputs")
    if not isinstance(hashes, dict):
        return []
    sources = hashes.get(SOURCES)
    recorded = iter([one for one in sources if one is not None] if isinstance(sources, list) else [])
    pairs = [
        (field, file, next(recorded, None) if field == SOURCES else hashes.get(field))
        for field, file in input_files(request)
    ]
    words = {SOURCES: "source"}
    return [f"the {words.get(field, field)} {file!r}" for field, file, was in pairs if not is_same_input(file, was)]


def is_in_memory(source: Any) -> bool:
    """Whether a recorded input is only the description of an image in memory."""
    return isinstance(source, str) and re.fullmatch(r"<an image of \d+x\d+>", source) is not None


def recorded_additions(record: Mapping[str, Any], given: set[str]) -> list[str]:
    """The options by which the recorded image encoder, prior and LoRA files are given, without those in `given`."""
    flags = {"image_encoder": "--image-encoder", "prior": "--prior", "loras": "--lora"}
    found = []
    for name in flags.keys() - given:
        value = record.get(name)
        files = value if isinstance(value, list) else [value]
        found += [f"{flags[name]} {one[:80]!r}" for one in files if isinstance(one, str)]
    return sorted(found)


def recorded_model(recorded: Recorded) -> str:
    """The model of the history, or the bundled one that a record names.

    Records are untrusted: folders and hub ids in them raise InputError.
    """
    if isinstance(given := recorded.options.get("model"), str):
        return given
    name = recorded.record.get("model")
    if isinstance(name, str) and name in list_bundled_models():
        return name
    raise InputError(f"the image was made by the model {repr(name)[:80]}, which is not bundled; give it by --model")
