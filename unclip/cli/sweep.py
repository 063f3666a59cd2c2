"""`unclip sweep`: one prompt with every combination of some values."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unclip.batch.file_names import NameTemplate
from unclip.batch.generation import Output
from unclip.batch.grid_file import find_grid
from unclip.batch.jobs import Settings
from unclip.batch.open_folder import open_folder, read_folder
from unclip.batch.remote_storage import is_url
from unclip.batch.run_record import run_seed
from unclip.batch.session import Session
from unclip.batch.sweep import Axis, Sweep, parse_axis, prompt_axis
from unclip.batch.sweep_page import check_grid, grid_plan, planned_cell, write_results
from unclip.checkpoints.identity import identify_model
from unclip.cli import checks, completion, options
from unclip.cli.assignments import checked_defaults
from unclip.cli.batch_progress import BatchProgress
from unclip.cli.model_options import ModelOptions
from unclip.cli.prompts import word_lists
from unclip.errors import InputError
from unclip.requests.values import size_text

NAME = "{index:05d}-{slug}-{seed}"
GRID = "Sweep"  # a section of the help


def sweep(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT", help="What to show; several prompts are an axis of their own.")
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="FIELD=A,B",
            help="Values of a field, such as steps=4,8,16 or seed=1..4 or prompt=a|b; give one for each axis: columns, "
            "rows, then panels.",
            callback=checks.checked(lambda _, value: [parse_axis(one) for one in value]),
            autocompletion=completion.assignments,
            rich_help_panel=GRID,
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Any other field of all images; may be repeated.",
            callback=checks.checked(lambda _, value: checked_defaults({}, value)),
            autocompletion=completion.assignments,
            rich_help_panel=GRID,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all combinations, print the plan, and exit.", rich_help_panel=GRID)
    ] = False,
    wildcards: options.Wildcards = None,
    no_wildcards: options.NoWildcards = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Seed of all images, unless it is varied.  [default: random, printed]",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    size: options.Size = None,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    speed: options.Speed = None,
    upsampler_steps: options.UpsamplerSteps = None,
    prior_steps: options.PriorSteps = None,
    prior_guidance: options.PriorGuidance = None,
    prior_sampler: options.PriorSampler = None,
    out: Annotated[
        str,
        typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the images.", rich_help_panel=options.OUTPUT),
    ] = "sweep",
    image_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="png|jpg|webp",
            help="Format of the images.",
            callback=checks.image_format,
            autocompletion=completion.image_formats,
            rich_help_panel=options.OUTPUT,
        ),
    ] = "png",
    open_when_done: options.Open = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    model: options.Model = "stickers",
    image_encoder: options.ImageEncoder = None,
    prior: options.Prior = None,
    lora: options.Lora = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = "auto",
    batch_size: options.BatchSize = 16,
) -> None:
    """Generate every combination of some values, and compare them on a grid.

    The folder gets the images, grid.png with labelled axes, and grid.html, a page to browse. The same command again
    resumes an interrupted sweep; with more values, it generates the missing images only.

    \b
    Example:
      unclip sweep "a penguin" --vary guidance=1,2,4 --vary steps=4,8 --seed 7
    """
    chosen = ModelOptions(
        model=model,
        image_encoder=image_encoder,
        prior=prior,
        lora=lora,
        device=device,
        dtype=dtype,
        memory=memory,
    )
    given: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "steps": steps,
        "prior_steps": prior_steps,
        "upsampler_steps": upsampler_steps,
        "guidance": guidance,
        "prior_guidance": prior_guidance,
        "sampler": sampler,
        "speed": speed,
        "prior_sampler": prior_sampler,
        "size": size,
    }
    if is_url(out):
        raise InputError(f"-o {out!r} is a URL, and a sweep makes a page of files: give a folder")
    defaults = checked_defaults(given, more or [])
    axes = sweep_axes(prompts, vary or [], {*defaults, *(("seed",) if seed is not None else ())})
    common = {} if len(prompts) > 1 or any(axis.field == "prompt" for axis in axes) else {"prompt": prompts[0]}
    identity = identify_model(model, download=not dry_run)
    template = NameTemplate.parse(NAME)

    def settings(run_seed: int) -> Settings:
        return Settings(
            seed=run_seed,
            name=template,
            defaults=defaults,
            sizes=identity.sizes,
            wildcards=not no_wildcards,
            word_lists=word_lists(wildcards),
        )

    def planned(run_seed: int) -> Sweep:
        """The sweep with its seed, reported."""
        own = common if any(axis.field == "seed" for axis in axes) else {**common, "seed": run_seed}
        found = Sweep(axes, own)
        found.check()
        check_grid(found)  # before each combination is checked, which takes long for many
        plan = grid_plan(found, planned_cell(found, settings(run_seed), identity))
        shape = f"{len(plan.columns)} columns x {len(plan.rows)} rows" + (
            f" x {len(plan.panels)} panels" if len(plan.panels) > 1 else ""
        )
        fields = {
            "images": found.count,
            "axes": {axis.field: axis.labels() for axis in axes},
            "columns": len(plan.columns),
            "rows": len(plan.rows),
            "panels": len(plan.panels),
            "grid": size_text(plan.size),
        }
        progress.grid_plan(fields, f"{found.count:,} images; the grid has {shape}, {size_text(plan.size)} pixels")
        return found

    progress = BatchProgress(as_json=as_json, quiet=quiet)
    output = Output("sweep", template, image_format)
    used_seed = run_seed(out, seed, identity, write=False)[0]
    combinations = planned(used_seed)
    session = Session(prompts=combinations, model=identity, output=output, report=progress)
    if dry_run:
        with read_folder(out) as folder:
            raise typer.Exit(session.dry_run(settings(used_seed), folder))
    with open_folder(out) as folder:
        naming = {"--format": image_format, **chosen.naming()}
        _, notes = run_seed(out, used_seed, identity, naming=naming)
        for note in (f"seed {used_seed}", *notes):
            progress.note(note)
        code = session.run(settings(used_seed), folder, lambda: chosen.load(quiet), batch_size or 16)
        if code != 130:
            for path in write_results(combinations, settings(used_seed), folder):
                progress.grid(path)
    if open_when_done and code != 130:
        options.open_result(find_grid(out, ".html") or Path(out))
    raise typer.Exit(code)


def sweep_axes(prompts: list[str], vary: list[str], given: set[str]) -> tuple[Axis, ...]:
    """The axes of the command line, several prompts last. Raises InputError for none, and for a field given twice."""
    axes = [parse_axis(one) for one in vary]
    if len(prompts) > 1:
        axes.append(prompt_axis(prompts))
    if not axes:
        raise InputError("nothing is varied; give --vary FIELD=A,B, such as --vary guidance=1,2,4")
    fields = [axis.field for axis in axes]
    for place, name in enumerate(fields):
        if name in fields[:place]:
            raise InputError(f"--vary {name}: it is varied twice; give all its values at once")
        if name in given:
            raise InputError(f"--vary {name}: it is given a single value too; leave one out")
    return tuple(axes)
