"""`unclip batch`: a prompt file to images, checked before it starts and resumed after an interruption."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.generation import Output
from unclip.batch.grid_file import find_grid
from unclip.batch.jobs import Settings
from unclip.batch.open_folder import open_folder, read_folder
from unclip.batch.prompt_file import FORMATS, prompt_file
from unclip.batch.ray import RayEngine, RayOptions, import_ray
from unclip.batch.remote_storage import is_url
from unclip.batch.run_record import run_seed
from unclip.batch.session import Grid, Session
from unclip.batch.word_lists import FOLDER, WordLists
from unclip.checkpoints.identity import identify_model
from unclip.cli import checks, completion, options
from unclip.cli.assignments import checked_defaults
from unclip.cli.batch_progress import BatchProgress
from unclip.cli.model_options import ModelOptions
from unclip.errors import InputError
from unclip.requests.fields import PRIORS

FILE, CLUSTER = "Prompt file", "Cluster"  # sections of the help
ENGINES = ("local", "ray")


def batch(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help=f"{', '.join(FORMATS)}, one of them as .gz, or - for standard input.")
    ],
    input_format: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Format of FILE, if its suffix does not say.",
            callback=checks.checked(lambda _, value: checks.check_choice("--input-format", value, FORMATS)),
            rich_help_panel=FILE,
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Default for any other field; may be repeated.",
            callback=checks.checked(lambda _, value: checked_defaults({}, value)),
            autocompletion=completion.assignments,
            rich_help_panel=FILE,
        ),
    ] = None,
    all_combinations: Annotated[
        bool,
        typer.Option("--all-combinations", help="Expand {a|b} to all choices.", rich_help_panel=FILE),
    ] = False,
    wildcards: options.Wildcards = None,
    no_wildcards: options.NoWildcards = False,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Run every N-th line only, from the I-th.",
            callback=checks.checked(lambda _, value: parse_shard(value)),
            rich_help_panel=FILE,
        ),
    ] = "1/1",
    strict: Annotated[
        bool, typer.Option("--strict", help="Generate nothing if any line is bad.", rich_help_panel=FILE)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all lines, print the plan, and exit.", rich_help_panel=FILE)
    ] = False,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            metavar="N",
            help="Images per line.  [default: 1]",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            help="Seed for lines without one.  [default: random]",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    size: options.Size = None,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    noise_level: options.NoiseLevel = None,
    upsampler_steps: options.UpsamplerSteps = None,
    speed: options.Speed = None,
    prior_steps: options.PriorSteps = None,
    prior_guidance: options.PriorGuidance = None,
    prior_sampler: options.PriorSampler = None,
    prior_temperature: options.PriorTemperature = None,
    prior_top_p: options.PriorTopP = None,
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for the images, or a URL such as s3://bucket/run.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = "out",
    name: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="File names, from index, line, image, seed, slug, id, size, model and columns.",
            callback=checks.checked(lambda _, value: NameTemplate.parse(value)),
            rich_help_panel=options.OUTPUT,
        ),
    ] = DEFAULT,
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
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files that `unclip batch` did not make.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare every finished image with its hash first.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    redo_moved: Annotated[
        bool,
        typer.Option(
            "--redo-moved",
            help="Make new images for lines that have moved in FILE, with their new seeds.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    grid: options.Grid = False,
    labels: options.Labels = False,
    preview: options.Preview = False,
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
    engine: Annotated[
        str,
        typer.Option(
            metavar="local|ray",
            help="Generate in this process, or in workers of a Ray cluster.",
            callback=checks.checked(lambda _, value: checks.check_choice("--engine", value, ENGINES)),
            rich_help_panel=CLUSTER,
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="With --engine ray: workers, each with a model.  [default: one per GPU, or per machine]",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            metavar="G",
            min=0,
            help="With --engine ray: GPUs of each worker, such as 0.5.  [default: 1 if there are any]",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="With --engine ray: a running cluster, or auto.  [default: one of this machine]",
            rich_help_panel=CLUSTER,
        ),
    ] = None,
) -> None:
    """Generate images from a prompt file.

    The same command again resumes an interrupted run. Options such as --steps are defaults for lines that do not set
    them.

    \b
    Example:
      unclip batch prompts.csv -o out/ --seed 7 --size 64x64
    """
    fields = {
        "n": n,
        "negative_prompt": negative_prompt,
        "steps": steps,
        "prior_steps": prior_steps,
        "noise_level": noise_level,
        "upsampler_steps": upsampler_steps,
        "speed": speed,
        "guidance": guidance,
        "prior_guidance": prior_guidance,
        "sampler": sampler,
        "prior": prior if prior in PRIORS else None,
        "prior_sampler": prior_sampler,
        "prior_temperature": prior_temperature,
        "prior_top_p": prior_top_p,
        "size": size,
    }
    defaults = checked_defaults(fields, more or [])
    checks.check_labels(labels, grid)
    chosen = ModelOptions(
        model=model,
        image_encoder=image_encoder,
        prior=prior,
        lora=lora,
        device=device,
        dtype=dtype,
        memory=memory,
    )
    template, part = NameTemplate.parse(name), parse_shard(shard)
    if is_url(out):
        _check_no_folder_options({"--preview": preview, "--grid": grid, "--open": open_when_done})
    cluster = _ray_options(engine, workers, gpus_per_worker, address, preview=preview)
    identity = identify_model(model, download=not dry_run)

    def settings(run_seed: int, folder: Path) -> Settings:
        return Settings(
            seed=run_seed,
            name=template,
            defaults=defaults,
            folder=folder,
            sizes=identity.sizes,
            wildcards=not no_wildcards,
            word_lists=WordLists(folder / FOLDER if wildcards is None else Path(wildcards)),
            all_combinations=all_combinations,
            shard=part,
        )

    with prompt_file(file, input_format) as prompts:
        naming = {"--name": name, "--format": image_format, **chosen.naming()}
        progress = BatchProgress(as_json=as_json, quiet=quiet)
        for note in prompts.header_notes():
            progress.note(note)
        session = Session(
            prompts=prompts,
            model=identity,
            output=Output(prompts.name, template, image_format),
            report=progress,
            strict=strict,
            grid=Grid(labels) if grid else None,
            preview=preview,
            verify=verify,
            redo_moved=redo_moved,
            naming=naming,
        )
        if dry_run:
            with read_folder(out, verify=verify) as folder:
                plan = settings(run_seed(folder.path, seed, identity, write=False)[0], prompts.folder)
                raise typer.Exit(session.dry_run(plan, folder))
        with open_folder(out, overwrite=overwrite, verify=verify) as folder:
            used_seed, notes = run_seed(folder.path, seed, identity, naming=naming, name=folder.name)
            folder.storage.sync()
            for note in (f"seed {used_seed}", *notes):
                progress.note(note)
            # With workers, the model of this process only checks the lines.
            own = chosen if cluster is None else replace(chosen, device="cpu", memory="low")
            distributed = None
            if cluster is not None:
                load_worker = partial(chosen.load, True)
                distributed = RayEngine(cluster, load_worker, identity, session.output, batch_size or 16, progress.note)
            used = settings(used_seed, prompts.folder)
            code = session.run(used, folder, lambda: own.load(quiet), batch_size or 16, distributed)
    if open_when_done and code != 130:
        options.open_result((find_grid(out) if grid else None) or Path(out))
    raise typer.Exit(code)


def _check_no_folder_options(given: dict[str, bool]) -> None:
    """Raise InputError for an option that needs the images in a folder."""
    for name, is_given in given.items():
        if is_given:
            raise InputError(f"{name} needs a folder of this machine: leave it out, or give one with -o")


def _ray_options(
    engine: str, workers: int | None, gpus_per_worker: float | None, address: str | None, *, preview: bool
) -> RayOptions | None:
    """The options of the Ray engine; None for the local one. Raises InputError for options that have no effect."""
    given = {"--workers": workers, "--gpus-per-worker": gpus_per_worker, "--address": address}
    if engine == "local":
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} needs --engine ray")
        return None
    if preview:
        raise InputError("--preview writes the steps of this process: leave it out with --engine ray")
    import_ray()
    return RayOptions(workers, gpus_per_worker, address)


def parse_shard(text: str) -> tuple[int, int]:
    """I/N -> (I, N). Raises InputError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    part = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= part[0] <= part[1]:
        raise InputError(f"--shard {text!r}: write I/N with I from 1 to N, such as 2/8")
    return part
