"""`unclip reproduce`: make an image again from its record, and compare."""

import json
import sys
from typing import Annotated

import typer

from unclip.checkpoints.locate import list_bundled_models
from unclip.cli import options
from unclip.cli.output import target
from unclip.cli.progress import Progress, on_terminal
from unclip.errors import DataError, InputError, RequestError
from unclip.images import metadata
from unclip.images.compare import TOLERANCE, Comparison, compare
from unclip.requests.request import Request
from unclip.system.choices import DTYPES, check_device, check_dtype, check_memory


def reproduce(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A PNG, JPEG or WebP file made by unclip.")],
    model: Annotated[str | None, typer.Option(help="Its name, or a folder. Unset: as recorded.")] = None,
    image_encoder: options.ImageEncoder = None,
    device: options.Device = "auto",
    dtype: Annotated[str | None, typer.Option(metavar="|".join(DTYPES), help="Precision. Unset: as recorded.")] = None,
    memory: options.Memory = "auto",
    out: Annotated[str | None, typer.Option("-o", "--out", help="Keep the new picture: a folder, or a file.")] = None,
    as_json: options.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no notes.")] = False,
) -> None:
    """Make an image again from the record in it, and say whether the pixels agree. Exit code 1 if they do not.

    Example: unclip reproduce out/a-penguin-7.png
    """
    check_device(device)
    check_dtype(dtype or "auto")
    check_memory(memory)
    record = metadata.read(image)
    if dtype is None:
        dtype = record["dtype"] if record.get("dtype") in DTYPES else "auto"
    request = recorded_request(record, image)
    name = recorded_model(record) if model is None else model
    place = None if out is None else target(out, images=1)
    if image_encoder is None and isinstance(other := record.get("image_encoder"), str) and not quiet:
        print(f"unclip: note: it was made with --image-encoder {other[:80]!r}", file=sys.stderr)

    from unclip.pipeline import Unclip

    progress = Progress(on_terminal(quiet))
    try:
        pipe = Unclip.from_pretrained(name, device, dtype, memory, image_encoder, progress)
        [result] = pipe.generate(request, progress=progress)
    finally:
        progress.close()
    found = compare(image, record, result.image, result.dtype)
    path = None if place is None else place.save(result)
    if as_json:
        told = {"file": image, "agrees": found.agrees, "identical": found.identical, "difference": found.difference}
        told |= {"tolerance": found.tolerance, "dtype": result.dtype}
        print(json.dumps({**told, "model": result.model, "seed": result.seed, "new_file": path and str(path)}))
    else:
        changed = record.get("dtype") not in (None, result.dtype)
        drawn = f"; drawn in {result.dtype}, not as recorded" if changed and not found.identical else ""
        print(f"{image}: {spoken(found)}{drawn}" + (f"; the new one is {path}" if path else ""))
    raise typer.Exit(0 if found.agrees else 1)


def recorded_request(record: dict, image: str) -> Request:
    """The request of one image that a record holds. Raises DataError for anything else."""
    try:
        request = Request.from_dict(record.get("request"))
    except RequestError as error:
        raise DataError(f"{image!r} holds a record whose request cannot be drawn: {error}") from None
    if request.count != 1 or request.seed is None:
        raise DataError(f"{image!r} holds a record that is not of one image with a seed; it is damaged")
    return request


def recorded_model(record: dict) -> str:
    """The name of the bundled model in a record, which is untrusted: it may name no folder and no download."""
    name = record.get("model")
    if isinstance(name, str) and name in list_bundled_models():
        return name
    shown = repr(name)[:80]
    raise InputError(f"the picture was made by the model {shown}, which did not come with unclip; give it by --model")


def spoken(found: Comparison) -> str:
    """A comparison in words."""
    if found.identical:
        return "identical pixels"
    if found.difference is None:
        return "the pixels differ; by how much a file of a lossy format cannot tell"
    if found.agrees:
        rough = ", as a batch of another size may move them in this precision" if found.difference > TOLERANCE else ""
        return f"pixels equal within {found.difference}/255{rough}"
    return f"the pixels differ by up to {found.difference}/255"
