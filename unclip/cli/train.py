"""`unclip train`: train a stage of a model from a recipe."""

import math
from typing import Annotated

import typer

from unclip.cli import options
from unclip.errors import InputError
from unclip.system.choices import check_device
from unclip.system.files import check_writable
from unclip.training.recipe import STAGES

CHOICES = (*STAGES, "all")


def train(
    stage: Annotated[str, typer.Argument(metavar="|".join(CHOICES), help="What to train; all: in this order.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where checkpoints, curves and samples go.")],
    recipe: Annotated[str, typer.Option(help="A recipe file, or a preset's name.")] = "stickers-cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    init: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from a model's weights, such as stickers.")
    ] = None,
    device: options.Device = "auto",
    minutes: Annotated[float | None, typer.Option(help="End each stage then, not after the recipe's steps.")] = None,
    steps: Annotated[int | None, typer.Option(help="End each stage after these steps, not the recipe's.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train a stage of a model, or all of them.

    Example: unclip train decoder --out runs/mine --minutes 30
    """
    options.check_choice("stage", stage, CHOICES)
    check_device(device)
    options.check_at_least_one("--steps", steps)
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes must be a finite number above 0, not {minutes}")
    if minutes is not None and steps is not None:
        raise InputError("--minutes and --steps both say when to end; give one of them")
    check_writable(out)

    from unclip.training import run

    choices = {"steps": steps, "minutes": minutes, "resume": resume, "init": init, "device": device, "quiet": quiet}
    run.train(stage, recipe, out, run.TrainingOptions(**choices))
