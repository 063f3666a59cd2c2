"""Options that several commands share, and checks that need no model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import InputError
from unclip.system.choices import DEVICES, DTYPES, MEMORY

Model = Annotated[str, typer.Option(help="A model's name, a checkpoint folder, or a hub id.")]
ImageEncoder = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="Whose CLIP image tower is used if there is none: as --model, or open_clip's name."
    ),
]
Embedding = Annotated[
    str | None, typer.Option(metavar="FILE", help="An embedding of `unclip embed` that guides in the prior's place.")
]
_SAMPLERS = "|".join(SAMPLER_NAMES)
NegativePrompt = Annotated[str | None, typer.Option(help="What to steer away from.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps of the decoder.")]
PriorSteps = Annotated[int | None, typer.Option(help="Denoising steps of the prior.")]
UpsamplerSteps = Annotated[int | None, typer.Option(help="Denoising steps of each upsampler.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale of the decoder.")]
PriorGuidance = Annotated[float | None, typer.Option(help="Guidance scale of the prior.")]
Sampler = Annotated[str | None, typer.Option(metavar=_SAMPLERS, help="Sampler of the decoder.")]
PriorSampler = Annotated[str | None, typer.Option(metavar=_SAMPLERS, help="And of the prior.")]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Such as 64x64. Unset: the model's largest.")]
Device = Annotated[str, typer.Option(metavar="|".join(DEVICES), help="Where to compute.")]
Dtype = Annotated[str, typer.Option(metavar="|".join(DTYPES), help="Precision of the weights.")]
Format = Annotated[str, typer.Option("--format", metavar="png|jpg|webp", help="Of the files of the pictures.")]
Grid = Annotated[bool, typer.Option("--grid", help="Put all pictures on one sheet too, grid.png in the folder.")]
Labels = Annotated[bool, typer.Option("--labels", help="Prompts and seeds below the pictures of --grid.")]
Preview = Annotated[
    bool, typer.Option("--preview", help="Write the picture of every step too, into a folder beside the result.")
]
Open = Annotated[bool, typer.Option("--open", help="Show the result when it is done.")]
Memory = Annotated[
    str, typer.Option(metavar="|".join(MEMORY), help="low: one network at a time; auto: by the free memory.")
]
Json = Annotated[
    bool,
    typer.Option("--json", help="JSON, a line an object, on standard output; all else on standard error."),
]


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{option} {value!r} is unknown; choose from {', '.join(choices)}")


def check_at_least_one(option: str, value: int | None) -> None:
    """Raise InputError if `value` is given and below 1."""
    if value is not None and value < 1:
        raise InputError(f"{option} must be at least 1, not {value}")


def check_labels(labels: bool, grid: bool) -> None:
    """Raise InputError for labels without anything to be on."""
    if labels and not grid:
        raise InputError("--labels are those of --grid; give both")


def show_result(path: Path) -> None:
    """Open a file or folder as the desktop does; where there is none, say so."""
    if typer.launch(str(path)) != 0:
        print(f"unclip: note: nothing here can show {path}", file=sys.stderr)
