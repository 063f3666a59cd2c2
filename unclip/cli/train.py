"""`unclip train`: train a stage of a model from a recipe."""

import math
from typing import Annotated

import typer

from unclip.cli import options
from unclip.errors import InputError
from unclip.system.files import check_writable
from unclip.training.recipe import STAGES

CHOICES = (*STAGES, "all")


def train(
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help=f"{', '.join(STAGES)}; or all, which trains them in this order.")
    ],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Folder for checkpoints, curves and samples.")],
    recipe: Annotated[str, typer.Option(metavar="NAME", help="Recipe file, or a preset's name.")] = "stickers-cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from a model's weights, such as stickers.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="Train each stage this long, not for the recipe's steps.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train each stage for N steps.  [default: the recipe's]", callback=options.at_least_one
        ),
    ] = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train a stage of a model, or all stages.

    \b
    Example:
      unclip train decoder --out runs/mine --minutes 30
    """
    options.check_choice("stage", stage, CHOICES)
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes must be a finite number above 0, not {minutes}")
    if minutes is not None and steps is not None:
        raise InputError("--minutes and --steps both limit the training; give one of them")
    check_writable(out)

    from unclip.training import run

    choices = {"steps": steps, "minutes": minutes, "resume": resume, "init": init, "device": device, "quiet": quiet}
    run.train(stage, recipe, out, run.TrainingOptions(**choices))
