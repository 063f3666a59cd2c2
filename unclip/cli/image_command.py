"""What all commands that make images have in common: their options, and the run itself."""

import functools
import inspect
import json
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from unclip.batch.previews import Previews
from unclip.cli import options
from unclip.cli.output import target
from unclip.cli.progress import Progress, on_terminal
from unclip.errors import InputError
from unclip.images.contact_sheet import Layout, animation, layout, sheet
from unclip.images.result import Result
from unclip.requests.fields import foreign_fields
from unclip.requests.request import Request
from unclip.requests.values import size_text
from unclip.system.choices import check_device, check_dtype, check_memory
from unclip.system.files import write_new

_RUN = (  # the others are fields of a Request
    *("model", "image_encoder", "batch_size", "device", "dtype", "memory", "out", "image_format"),
    *("grid", "labels", "preview", "open_result", "as_json", "quiet"),
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The options that every command which makes images has, as typer reads them."""

    model: options.Model = "stickers"
    image_encoder: options.ImageEncoder = None
    n: Annotated[int, typer.Option("-n", help="Images of each prompt.")] = 1
    seed: Annotated[int | None, typer.Option(help="Image i has SEED + i. Unset: drawn, and printed.")] = None
    negative_prompt: options.NegativePrompt = ""
    steps: options.Steps = None
    prior_steps: options.PriorSteps = None
    upsampler_steps: options.UpsamplerSteps = None
    guidance: options.Guidance = None
    prior_guidance: options.PriorGuidance = None
    sampler: options.Sampler = None
    prior_sampler: options.PriorSampler = None
    prior_best_of: Annotated[
        int | None, typer.Option(help="Embeddings the prior draws; the one nearest to the text is used.")
    ] = None
    best_of: Annotated[
        int | None, typer.Option(metavar="K", help="Draw K candidates and keep the n with the best CLIP scores.")
    ] = None
    batch_size: Annotated[int | None, typer.Option(help="Images computed at a time.")] = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    memory: options.Memory = "auto"
    out: Annotated[str, typer.Option("-o", "--out", help="A folder, or for one image a file: .png, .jpg or .webp.")] = (
        "out"
    )
    image_format: Annotated[
        str | None, typer.Option("--format", metavar="png|jpg|webp", help="Of files in a folder. Unset: png.")
    ] = None
    grid: options.Grid = False
    labels: options.Labels = False
    preview: options.Preview = False
    open_result: options.Open = False
    as_json: options.Json = False
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar and no notes.")] = False

    def request_fields(self) -> dict[str, Any]:
        """Those that are fields of a Request."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _RUN}


@dataclass(frozen=True)
class Film:
    """What a sequence of images is put together to, beside them: an animation, a strip."""

    gif: bool
    strip: bool


def with_drawing(mode: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make `function(its own options, drawing: Drawing)` a command whose help lists the options of both.

    Options that are fields which the mode has not are left out.
    """

    def wrap(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(Drawing, include_extras=True)
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "drawing"]
        shared = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields(Drawing)
            if f.name not in foreign_fields(mode)
        ]

        @functools.wraps(function)
        def command(**given: Any) -> None:
            drawing = Drawing(**{parameter.name: given.pop(parameter.name) for parameter in shared})
            function(**given, drawing=drawing)

        command.__signature__ = inspect.Signature([*own, *shared])
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        return command

    return wrap


def draw(jobs: Sequence[dict[str, Any]], drawing: Drawing, film: Film | None = None) -> None:
    """Make the images of Requests with the fields of `jobs` and of `drawing`, write them, and tell of each."""
    shared = drawing.request_fields()
    if drawing.seed is None:  # one for all prompts, so that the command can be given again with it
        shared["seed"] = secrets.randbelow(2**32)
    requests = [Request(**shared, **job) for job in jobs]
    check_device(drawing.device)
    check_dtype(drawing.dtype)
    check_memory(drawing.memory)
    options.check_at_least_one("--batch-size", drawing.batch_size)
    options.check_labels(drawing.labels, drawing.grid)
    images = sum(request.count for request in requests)
    place = target(drawing.out, images=images, format=drawing.image_format)
    for option, asked in (("--grid", drawing.grid), ("--gif", film and film.gif), ("--strip", film and film.strip)):
        if asked and place.is_file:
            raise InputError(f"{option} goes into a folder, and -o {drawing.out!r} is a file; leave one out")

    from unclip.pipeline import Unclip

    progress = Progress(on_terminal(drawing.quiet))
    watcher = Previews(place.previews, progress) if drawing.preview else progress
    told: set[str] = set()
    paths: list[tuple[Path, str]] = []
    try:
        pipe = Unclip.from_pretrained(
            drawing.model,
            device=drawing.device,
            dtype=drawing.dtype,
            memory=drawing.memory,
            image_encoder=drawing.image_encoder,
            progress=progress,
        )
        if drawing.grid:
            cell = pipe.picture_size(requests[0])
            layout(images, cell, drawing.labels)  # too large a sheet is to fail now, not at the end
        for result in pipe.stream(requests, batch_size=drawing.batch_size, progress=watcher):
            progress.close()
            path = place.save(result)
            paths.append((path, f"{result.seed} {result.request.prompt}"))
            size = result.image.size
            print(_line(result, path, drawing.as_json), flush=True)
            for note in result.notes:
                if note not in told and not drawing.quiet:
                    print(f"unclip: note: {note}", file=sys.stderr)
                told.add(note)
    finally:
        progress.close()
    shown = paths[0][0] if len(paths) == 1 else place.path
    if drawing.grid:
        shown = write_new(place.path / "grid.png", sheet(paths, layout(len(paths), cell, drawing.labels)))
        print(f"unclip: the grid is {shown}", file=sys.stderr)
    if film is not None and film.strip:
        shown = write_new(place.path / "strip.png", sheet(paths, Layout(len(paths), 1, size, 0)))
        print(f"unclip: the strip is {shown}", file=sys.stderr)
    if film is not None and film.gif:
        shown = write_new(place.path / "frames.gif", animation([path for path, _ in paths]))
        print(f"unclip: the animation is {shown}", file=sys.stderr)
    if drawing.open_result:
        options.show_result(shown)


def _line(result: Result, path: Path, as_json: bool) -> str:
    """What standard output says of an image."""
    if not as_json:
        return f"{path}  seed {result.seed}"
    return json.dumps(
        {
            "file": str(path),
            "seed": result.seed,
            "prompt": result.request.prompt,
            "model": result.model,
            "size": size_text(result.image.size),
            "score": result.score,
            **({"ranked": result.ranked} if result.ranked else {}),
        }
    )
