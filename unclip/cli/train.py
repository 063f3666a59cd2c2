"""`unclip train`: train a stage of a model from a recipe."""

import math
from typing import Annotated

import typer

from unclip.cli import checks, options
from unclip.cli.processes import start_processes
from unclip.errors import InputError
from unclip.system.files import check_writable
from unclip.training.recipe_tables import STAGES

NAMES = {stage.replace("_", "-"): stage for stage in STAGES}
"""The stages by their names on the command line."""
CHOICES = (*NAMES, "all")
DISTILLATIONS = ("guidance", "consistency")


def train(
    ctx: typer.Context,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help=f"{', '.join(NAMES)}; or all, which trains them in this order.")
    ],
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder for checkpoints, curves and samples.  [required]")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Recipe file, or a preset's name.  [default: stickers-cpu; finetune for a published model; distill "
            "with --distill]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Folder of images with captions, or .tar shards; instead of the recipe's. For --distill, a .txt of "
            "prompts is enough.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Check the recipe and all images, list the bad files, and train nothing."),
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Pass over images that cannot be read, and count them.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Start from a model's weights. A published model's decoder or prior is fine-tuned as it is.",
        ),
    ] = None,
    lora: Annotated[
        int | None,
        typer.Option(
            metavar="RANK",
            help="Fine-tune the model of --init with LoRA layers of this rank, saved in a small file.",
            callback=checks.at_least_one,
        ),
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Train a faster copy of a stage of --teacher: guidance (one evaluation a step) or consistency (few "
            "steps).",
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model that --distill learns from; it needs no images.")
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Prior of the model of --init or --teacher, if elsewhere.",
            callback=checks.prior_model,
        ),
    ] = None,
    image_encoder: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Image encoder for that model, if it has none.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Train each stage this long, not for the recipe's steps.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Train each stage for N steps.  [default: the recipe's]",
            callback=checks.at_least_one,
        ),
    ] = None,
    processes: options.Processes = None,
    accumulate: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Compute each batch, or a process's part of it, in N parts one after the other: less memory, the same "
            "result.",
            callback=checks.at_least_one,
        ),
    ] = 1,
    shard_weights: Annotated[
        bool,
        typer.Option(
            "--shard-weights",
            help="Divide weights, gradients and moments among the processes (FSDP): for networks too large for a GPU.",
        ),
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train a stage of a model, or all stages.

    \b
    Examples:
      unclip train all --recipe mine.toml --check
      unclip train decoder --out runs/mine --minutes 30 --processes 2
      unclip train decoder --init models/karlo --lora 8 --out runs/lora
      unclip train prior --distill guidance --teacher models/karlo --data p.txt
    """
    stage = stage.replace("_", "-")
    checks.check_choice("stage", stage, CHOICES)
    stage = NAMES.get(stage, stage)
    if distill is not None:
        checks.check_choice("--distill", distill, DISTILLATIONS)
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes must be a finite number above 0, not {minutes}")
    if minutes is not None and steps is not None:
        raise InputError("--minutes and --steps both limit the training; give one of them")
    if out is None and not check:
        raise InputError("Missing option '--out': give the folder for checkpoints, or --check to train nothing")
    if out is not None and not check:
        check_writable(out)
    if check and processes is not None and processes > 1:
        raise InputError("--check runs in one process: leave out --processes")
    if (code := start_processes(ctx, processes)) is not None:
        raise typer.Exit(code)

    from unclip.training import run

    choices = run.TrainingOptions(
        steps=steps,
        minutes=minutes,
        resume=resume,
        init=init,
        lora=lora,
        distill=distill,
        teacher=teacher,
        data=data,
        prior=prior,
        image_encoder=image_encoder,
        skip_bad=skip_bad,
        device=device,
        dtype=dtype,
        accumulation=accumulate,
        shard=shard_weights,
        quiet=quiet,
    )
    if check:
        run.check(stage, recipe, out, choices, print_fault)
    elif out is not None:
        run.train(stage, recipe, out, choices)


def print_fault(line: str) -> None:
    """Print a bad file on standard output, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(line)
