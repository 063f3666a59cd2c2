"""`unclip reproduce`: make an image again from its record, and compare."""

import json
import sys
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
from unclip.requests.request import Request
from unclip.system.choices import DTYPES, check_dtype


def reproduce(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP file made by unclip.")],
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="PATH", help="Keep the new image: a folder or a file.")
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

    The exit code is 1 if the pixels differ.

    \b
    Example:
      unclip reproduce out/a-penguin-7.png
    """
    record = metadata.read(image)
    recorded_dtype = record["dtype"] if record.get("dtype") in DTYPES else "auto"
    request = recorded_request(record, image)
    name = recorded_model(record) if model is None else model
    target = None if out is None else find_target(out, images=1)
    if image_encoder is None and isinstance(other := record.get("image_encoder"), str) and not quiet:
        print(f"unclip: note: the image was made with --image-encoder {other[:80]!r}", file=sys.stderr)

    from unclip.pipeline import Unclip

    with closing(Progress(on_terminal(quiet))) as progress:
        pipe = Unclip.from_pretrained(name, device, dtype or recorded_dtype, memory, image_encoder, progress=progress)
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
            "dtype": result.dtype,
            "model": result.model,
            "seed": result.seed,
            "new_file": path and str(path),
        }
        print(json.dumps(line))
    else:
        other_dtype = record.get("dtype") not in (None, result.dtype) and not found.identical
        dtype_note = f"; made in {result.dtype}, not the recorded precision" if other_dtype else ""
        print(f"{image}: {describe(found)}{dtype_note}" + (f"; the new image is {path}" if path else ""))
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
