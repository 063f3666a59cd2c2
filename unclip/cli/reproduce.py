"""`unclip reproduce`: make an image again from its record, and compare."""

import json
import sys
from contextlib import closing
from typing import Annotated, Any

import typer

from unclip.cli import checks, options, records
from unclip.cli.output import find_target
from unclip.cli.progress import Progress, on_terminal
from unclip.images import metadata
from unclip.images.compare import TOLERANCE, Comparison, compare
from unclip.images.inputs import SOURCES
from unclip.system.choices import DTYPES, check_dtype
from unclip.system.light_imports import import_networks


def reproduce(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP file made by unclip, or @12 of `unclip log`.")
    ],
    out: Annotated[
        str | None, typer.Option("-o", "--out", metavar="PATH", help="Keep the new image: a folder or a file.")
    ] = None,
    input_image: records.InputImage = None,
    input_mask: records.InputMask = None,
    input_embedding: records.InputEmbedding = None,
    input_sources: records.InputSources = None,
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
            callback=checks.checked(lambda _, value: check_dtype(value)),
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
    recorded = records.read_recorded(image)
    record = recorded.record
    given = {"image": input_image, "mask": input_mask, "embedding": input_embedding, SOURCES: input_sources or None}
    request = records.recorded_request(records.with_inputs(record, given, image), image)
    records.check_recorded_inputs(request, image)
    changed = records.changed_inputs(request, record)
    for change in changed:
        if not quiet:
            print(f"unclip: note: {change} is not the file that was used; the pixels may differ", file=sys.stderr)
    name = records.recorded_model(recorded) if model is None else model
    image_encoder = recorded.options.get("image_encoder") if image_encoder is None else image_encoder
    prior = recorded.options.get("prior") if prior is None else prior
    lora = lora or recorded.options.get("lora")
    target = None if out is None else find_target(out, images=1)
    if not quiet:
        additions = {"image_encoder": image_encoder, "prior": prior, "loras": lora}
        for option in records.recorded_additions(record, {name for name, value in additions.items() if value}):
            print(f"unclip: note: the image was made with {option}", file=sys.stderr)

    import_networks()
    from unclip.pipeline import Unclip

    with closing(Progress(on_terminal(quiet))) as progress:
        precision = dtype or records.recorded_dtype(record)
        pipe = Unclip.from_pretrained(
            name, device, precision, memory, image_encoder, prior, lora or (), progress=progress
        )
        [result] = pipe.generate(request, progress=progress)
    if (size := metadata.resized_size(record)) is not None:
        result = result.resized(size)
    found = compare(recorded.file, record, result.image, result.dtype)
    path = None if target is None else target.save(result)
    if as_json:
        line: dict[str, Any] = {
            "file": image,
            "agrees": found.agrees,
            "identical": found.identical,
            "difference": found.difference,
            "rms": found.rms,
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


def describe(found: Comparison) -> str:
    """A comparison in words."""
    if found.identical:
        return "identical pixels"
    if found.difference is None:
        return "the pixels differ; the file's format is lossy or it is gone, so the difference cannot be measured"
    if found.agrees:
        mean = f" (root mean square {found.rms:.1f}), which another batch size can cause in this precision"
        return f"pixels equal within {found.difference}/255{mean if found.difference > TOLERANCE else ''}"
    return f"the pixels differ by up to {found.difference}/255 (root mean square {found.rms:.1f})"
