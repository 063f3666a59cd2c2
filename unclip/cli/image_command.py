"""Shared by all commands that make images: their common options, and the run from Requests to files."""

import functools
import inspect
import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from unclip.batch.previews import Previews
from unclip.checkpoints.locate import find_checkpoint
from unclip.cli import checks, completion, options
from unclip.cli.history import History, history_file
from unclip.cli.output import Target, find_target
from unclip.cli.progress import Progress, note, on_terminal
from unclip.cli.prompts import make_requests, word_lists
from unclip.errors import CheckpointError, DataError, InputError
from unclip.images.contact_sheet import Layout, animation, layout, sheet
from unclip.images.inputs import check_inputs
from unclip.images.result import Result
from unclip.images.video import check_video, video
from unclip.requests.fields import PRIORS, foreign_fields
from unclip.requests.request import Request
from unclip.requests.seeds import parse_seeds
from unclip.requests.values import size_text
from unclip.system.files import read_ahead, write_new
from unclip.system.light_imports import import_networks

FPS = 8
"""Default number of images per second of an animation."""
_PROMPTS = ("wildcards", "no_wildcards")
_OUTPUT = ("out", "image_format", "grid", "labels", "preview", "open_when_done", "history", "as_json", "quiet")
_MODEL = ("model", "image_encoder", "prior", "lora", "device", "dtype", "memory", "batch_size", "server")
_RUN = (*_PROMPTS, *_OUTPUT, *_MODEL)  # the other options are fields of a Request


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The options of every command that makes images, in the order of the help."""

    wildcards: options.Wildcards = None
    no_wildcards: options.NoWildcards = False
    n: Annotated[
        int,
        typer.Option("-n", metavar="N", help="Images to generate.", rich_help_panel=options.IMAGE),
    ] = 1
    seed: options.Seeds = None
    negative_prompt: options.NegativePrompt = ""
    best_of: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Generate K candidates and keep the n best by CLIP score: similarity to the prompt, not quality.",
            rich_help_panel=options.IMAGE,
        ),
    ] = None
    steps: options.Steps = None
    guidance: options.Guidance = None
    noise_level: options.NoiseLevel = None
    sampler: options.Sampler = None
    upsampler_steps: options.UpsamplerSteps = None
    speed: options.Speed = None
    spacing: options.Spacing = None
    guidance_interval: options.GuidanceInterval = None
    guidance_every: options.GuidanceEvery = None
    cache_every: options.CacheEvery = None
    upsampler_cache_every: options.UpsamplerCacheEvery = None
    prior_steps: options.PriorSteps = None
    prior_guidance: options.PriorGuidance = None
    prior_sampler: options.PriorSampler = None
    prior_temperature: options.PriorTemperature = None
    prior_top_p: options.PriorTopP = None
    prior_best_of: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help=f"Sample K embeddings and use the one closest to the text.{options.MODELS_DEFAULT}",
            rich_help_panel=options.PRIOR,
        ),
    ] = None
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="A folder, or for one image a .png, .jpg or .webp file.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = "out"
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="png|jpg|webp",
            help="Format of the files in a folder.  [default: png]",
            callback=checks.image_format,
            autocompletion=completion.image_formats,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None
    grid: options.Grid = False
    labels: options.Labels = False
    preview: options.Preview = False
    open_when_done: options.Open = False
    history: options.History = True
    as_json: options.Json = False
    quiet: options.Quiet = False
    model: options.Model = "stickers"
    image_encoder: options.ImageEncoder = None
    prior: options.Prior = None
    lora: options.Lora = None
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    memory: options.Memory = "auto"
    batch_size: options.BatchSize = 16
    server: options.Server = None

    def request_fields(self) -> dict[str, Any]:
        """The options that are fields of a Request."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _RUN}
        return found | ({"prior": self.prior} if self.prior in PRIORS else {})


@dataclass(frozen=True)
class SequenceFiles:
    """Files to make of a whole sequence of images: animations with `fps` images per second, a strip."""

    gif: bool = False
    strip: bool = False
    mp4: bool = False
    webm: bool = False
    fps: float = FPS

    def options(self) -> list[str]:
        """The options of the files that are wanted."""
        return [f"--{name}" for name in ("gif", "strip", "mp4", "webm") if getattr(self, name)]


@dataclass(frozen=True)
class Saved:
    """A saved image: its path, its label on a grid, its (width, height)."""

    path: Path
    label: str
    size: tuple[int, int]


def image_command(
    mode: str, shared_options: type[ImageOptions] = ImageOptions
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator: `function(own options, *, shared: ImageOptions)` -> a command with both sets of options.

    mode: options that are fields of other modes only are left out. shared_options: may have other defaults.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        # Typer reads options from a function's signature only, not from a dataclass. So the command gets a signature
        # with one parameter for each field, and puts the values back into the dataclass.
        hints = get_type_hints(shared_options, include_extras=True)
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "shared"]
        foreign = foreign_fields(mode)
        if "prior" in foreign:  # the option remains, for a model that needs another prior to load
            hints["prior"] = options.PriorModel
        shared = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields(shared_options)
            if f.name in _RUN or f.name not in foreign
        ]

        @functools.wraps(function)
        def command(**given: Any) -> None:
            values = {parameter.name: given.pop(parameter.name) for parameter in shared}
            function(**given, shared=shared_options(**values))

        command.__dict__["__signature__"] = inspect.Signature([*own, *shared])
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
        return command

    return decorate


def make_images(
    jobs: Sequence[dict[str, Any]], shared: ImageOptions, sequence: SequenceFiles = SequenceFiles()
) -> None:
    """Generate images, save them, and print a line for each.

    jobs: for each Request, the fields that are not in `shared`.
    """
    # Without a seed, one for all prompts, so that the whole command can be repeated with it.
    seeds = (secrets.randbelow(2**32),) if shared.seed is None else parse_seeds(shared.seed)
    common = {**shared.request_fields(), "seed": seeds}
    lists = None if shared.no_wildcards else word_lists(shared.wildcards)
    requests = [request for job in jobs for request in make_requests({**common, **job}, lists)]
    checks.check_labels(shared.labels, shared.grid)
    target = find_target(shared.out, sum(request.count for request in requests), shared.image_format)
    for option in [*(["--grid"] if shared.grid else []), *sequence.options()]:
        if target.is_file:
            raise InputError(f"{option} goes into a folder, but -o {shared.out!r} is a file; leave one out")
        if option in ("--mp4", "--webm"):
            check_video(option)
    for request in requests:
        check_inputs(request, decode=shared.server is None)  # a server decodes them itself
    saved, cell = generate_and_save(requests, shared, target)
    shown = saved[0].path if len(saved) == 1 else target.path
    pairs = [(image.path, image.label) for image in saved]
    if cell is not None:
        shown = write_new(target.path / "grid.png", sheet(pairs, layout(len(pairs), cell, shared.labels)))
        print(f"unclip: the grid is {shown}", file=sys.stderr)
    paths = [image.path for image in saved]
    if sequence.strip:
        shown = write_new(target.path / "strip.png", sheet(pairs, Layout(len(pairs), 1, saved[-1].size, 0)))
        print(f"unclip: the strip is {shown}", file=sys.stderr)
    if sequence.gif:
        shown = write_new(target.path / "frames.gif", animation(paths, round(1000 / sequence.fps)))
        print(f"unclip: the animation is {shown}", file=sys.stderr)
    for format in ("mp4", "webm"):
        if getattr(sequence, format):
            shown = write_new(target.path / f"frames.{format}", video(paths, format, sequence.fps))
            print(f"unclip: the video is {shown}", file=sys.stderr)
    if shared.open_when_done:
        options.open_result(shown)


def generate_and_save(
    requests: Sequence[Request], shared: ImageOptions, target: Target
) -> tuple[list[Saved], tuple[int, int] | None]:
    """The saved images, in order, and with --grid the (width, height) of its cells."""
    saved: list[Saved] = []
    notes: set[str] = set()
    remember = recorder(shared)
    with closing(Progress(on_terminal(shared.quiet))) as progress:
        if shared.server is None:
            results, cell = generate_here(requests, shared, target, progress)
        else:
            from unclip.cli.remote import Server

            results, cell = Server(shared.server).stream(requests, shared.model, progress), None
        for result in results:
            progress.close()
            path = target.save(result)
            saved.append(Saved(path, f"{result.seed} {result.request.prompt}", result.image.size))
            remember(path, result)
            print(describe(result, path, shared.as_json), flush=True)
            for text in result.notes:
                if text not in notes and not shared.quiet:
                    note(text)
                notes.add(text)
    return saved, saved[0].size if shared.grid and cell is None else cell


def generate_here(
    requests: Sequence[Request], shared: ImageOptions, target: Target, progress: Progress
) -> tuple[Iterator[Result], tuple[int, int] | None]:
    """The images of a model that is loaded in this process, and with --grid the (width, height) of its cells."""
    with suppress(CheckpointError):  # one that is missing is reported below
        read_ahead(find_checkpoint(shared.model).rglob("*.safetensors"))  # while the imports go on
    import_networks()
    from unclip.modes.inpainting.prepare import check_edit
    from unclip.pipeline import Unclip

    for request in requests:
        if request.edits_canvas:
            check_edit(request)  # before the model is loaded
    pipe = Unclip.from_pretrained(
        shared.model,
        device=shared.device,
        dtype=shared.dtype,
        memory=shared.memory,
        image_encoder=shared.image_encoder,
        prior=shared.prior,
        lora=shared.lora or (),
        progress=progress,
    )
    cell = pipe.output_size(requests[0]) if shared.grid else None
    if cell is not None:
        layout(sum(request.count for request in requests), cell, shared.labels)  # refuse a large grid now
    watcher = Previews(target.previews, progress) if shared.preview else progress
    return pipe.stream(requests, batch_size=shared.batch_size, progress=watcher), cell


def recorder(shared: ImageOptions) -> Callable[[Path, Result], None]:
    """A function that adds an image to the history, unless that is off; what fails there is noted once."""
    names = ("model", "image_encoder", "prior", "lora")
    history = History(history_file(), {name: getattr(shared, name) for name in names}) if shared.history else None

    def remember(path: Path, result: Result) -> None:
        nonlocal history
        if history is not None:
            try:
                history.add(path, result)
            except DataError as error:
                if not shared.quiet:
                    note(str(error))
                history = None

    return remember


def describe(result: Result, path: Path, as_json: bool) -> str:
    """The line on standard output for an image."""
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
