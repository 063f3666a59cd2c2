"""`unclip reproduce`: make an image again from its record, and compare."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Annotated, Any

import typer

from unclip.checkpoints.locate import list_bundled_models
from unclip.cli import options
from unclip.cli.output import find_target
from unclip.cli.progress import Progress, on_terminal
from unclip.errors import DataError, InputError, RequestError
from unclip.images import metadata
from unclip.images.compare import TOLERANCE, Comparison, compare
from unclip.images.inputs import SOURCES, check_inputs, input_files, is_same_input
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.system.choices import DTYPES, check_dtype

OPTIONS = {"image": "--image", "mask": "--mask", "embedding": "--embedding", SOURCES: "--source"}
_INPUT: Any = {"rich_help_panel": "Input files"}


def reproduce(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP file made by unclip.")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="PATH", help="Keep the new image: a folder or a file.")
    ] = None,
    input_image: Annotated[
        str | None,
        typer.Option("--image", metavar="FILE", help="The image that was edited, if it is elsewhere now.", **_INPUT),
    ] = None,
    input_mask: Annotated[
        str | None, typer.Option("--mask", metavar="FILE", help="The mask, if it is elsewhere now.", **_INPUT)
    ] = None,
    input_embedding: Annotated[
        str | None, typer.Option("--embedding", metavar="FILE", help="The embedding, if it is elsewhere now.", **_INPUT)
    ] = None,
    input_sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="FILE",
            help="Sources of an interpolation, in order, if they are elsewhere now.",
            **_INPUT,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name, folder or hub id.  [default: as recorded]",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    image_encoder: options.ImageEncoder = None,
    prior: options.PriorModel = None,
    lora: options.Lora = None,
    device: options.Device = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Precision: {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.  [default: as recorded]",
            callback=options.checked(lambda _, value: check_dtype(value)),
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    memory: options.Memory = "auto",
) -> None:
    """Make an image again from its record, and compare.

    The record names the input files of an edit and has their hashes; a changed input is reported. The exit code is 1 if
    the pixels differ.

    \b
    Example:
      unclip reproduce out/a-penguin-7.png
    """
    record = metadata.read(image)
    if "canvas" in record:
        raise DataError(f"{image!r} is a canvas, whose parts were made by requests of their own; see `unclip show`")
    recorded_dtype = record["dtype"] if record.get("dtype") in DTYPES else "auto"
    given = {"image": input_image, "mask": input_mask, "embedding": input_embedding, SOURCES: input_sources or None}
    request = recorded_request(with_inputs(record, given, image), image)
    check_recorded_inputs(request, image)
    changed = changed_inputs(request, record)
    for change in changed:
        if not quiet:
            print(f"unclip: note: {change} is not the file that was used; the pixels may differ", file=sys.stderr)
    name = recorded_model(record) if model is None else model
    target = None if out is None else find_target(out, images=1)
    if not quiet:
        additions = {"image_encoder": image_encoder, "prior": prior, "loras": lora}
        for option in recorded_additions(record, {name for name, value in additions.items() if value}):
            print(f"unclip: note: the image was made with {option}", file=sys.stderr)

    from unclip.pipeline import Unclip

    with closing(Progress(on_terminal(quiet))) as progress:
        precision = dtype or recorded_dtype
        pipe = Unclip.from_pretrained(
            name, device, precision, memory, image_encoder, prior, lora or (), progress=progress
        )
        [result] = pipe.generate(request, progress=progress)
    found = compare(image, record, result.image, result.dtype)
    path = None if target is None else target.save(result)
    if as_json:
        line: dict[str, Any] = {
            "file": image,
            "agrees": found.agrees,
            "identical": found.identical,
            "difference": found.difference,
            "tolerance": found.tolerance,
            "changed_inputs": changed,
            "dtype": result.dtype,
            "model": result.model,
            "seed": result.seed,
            "new_file": path and str(path),
        }
        print(json.dumps(line))
    else:
        other_dtype = record.get("dtype") not in (None, result.dtype) and not found.identical
        dtype_note = f"; made in {result.dtype}, not the recorded precision" if other_dtype else ""
        input_note = f"; changed since: {', '.join(changed)}" if changed and not found.identical else ""
        print(f"{image}: {describe(found)}{dtype_note}{input_note}" + (f"; the new image is {path}" if path else ""))
    raise typer.Exit(0 if found.agrees else 1)


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


def recorded_model(record: dict[str, Any]) -> str:
    """The bundled model that a record names. Records are untrusted: folders and hub ids raise InputError."""
    name = record.get("model")
    if isinstance(name, str) and name in list_bundled_models():
        return name
    raise InputError(f"the image was made by the model {repr(name)[:80]}, which is not bundled; give it by --model")


def describe(found: Comparison) -> str:
    """A comparison in words."""
    if found.identical:
        return "identical pixels"
    if found.difference is None:
        return "the pixels differ; the file's format is lossy, so the difference cannot be measured"
    if found.agrees:
        larger = ", which another batch size can cause in this precision" if found.difference > TOLERANCE else ""
        return f"pixels equal within {found.difference}/255{larger}"
    return f"the pixels differ by up to {found.difference}/255"
