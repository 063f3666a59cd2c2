"""Options that several commands share, and checks that need no model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from unclip.checkpoints.additions import find_lora
from unclip.cli import completion
from unclip.cli.checks import (
    at_least_one,
    check_folder,
    check_prior,
    check_seeds,
    checked,
    local_model,
    prior_model,
)
from unclip.cli.settings import DEFAULT_URL
from unclip.diffusion.sampler_names import SAMPLER_NAMES, SPACING_NAMES
from unclip.requests.fields import FITS, MAX_GUIDANCE, MAX_STEPS, PRIORS, SPEEDS
from unclip.system.choices import DEVICES, DTYPES, MEMORY, check_device, check_dtype, check_memory

# Sections of the help.
PROMPTS = "Prompts"
IMAGE = "Image"
SAMPLING = "Sampling"
SPEED = "Speed"
PRIOR = "Prior"
OUTPUT = "Output"
MODEL = "Model and device"

MODELS_DEFAULT = "  [default: the model's]"  # in the form that typer gives to other defaults


_SAMPLERS = f"{', '.join(SAMPLER_NAMES[:-1])} or {SAMPLER_NAMES[-1]}"

Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(DEVICES[:-1])} or {DEVICES[-1]}.",
        callback=checked(lambda _, value: check_device(value)),
        autocompletion=completion.one_of(*DEVICES[:-1]),
        rich_help_panel=MODEL,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Precision: {', '.join(DTYPES[:-1])} or {DTYPES[-1]}.",
        callback=checked(lambda _, value: check_dtype(value)),
        autocompletion=completion.one_of(*DTYPES),
        rich_help_panel=MODEL,
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        metavar="|".join(MEMORY),
        help="low loads one network at a time; auto decides by free memory.",
        callback=checked(lambda _, value: check_memory(value)),
        autocompletion=completion.one_of(*MEMORY),
        rich_help_panel=MODEL,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Name, folder or hub id.",
        callback=local_model,
        autocompletion=completion.models,
        rich_help_panel=MODEL,
    ),
]
ImageEncoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="CLIP image encoder if the model has none: a model, or an open_clip name.",
        rich_help_panel=MODEL,
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{' or '.join(PRIORS)}; or another prior: a folder or a hub id.",
        callback=checked(lambda _, value: check_prior(value)),
        autocompletion=completion.models,
        rich_help_panel=MODEL,
    ),
]
PriorModel = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="NAME",
        help="Another prior: a folder or a hub id.",
        callback=prior_model,
        rich_help_panel=MODEL,
    ),
]
"""Of commands that sample no embeddings for prompts, or whose input says by which kind of prior."""
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="LoRA file to add to the model; may be repeated.",
        callback=checked(lambda _, value: [find_lora(one) for one in value]),
        rich_help_panel=MODEL,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Images computed at a time.",
        callback=at_least_one,
        rich_help_panel=MODEL,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Share the work among N processes of this machine: one for each GPU.  [default: 1, or those that torchrun "
        "or accelerate starts]",
        callback=at_least_one,
        rich_help_panel=MODEL,
    ),
]

Wildcards = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder of word lists: __animals__ in a prompt is a line of animals.txt.  [default: wildcards]",
        callback=checked(lambda _, value: check_folder("--wildcards", value)),
        rich_help_panel=PROMPTS,
    ),
]
NoWildcards = Annotated[
    bool,
    typer.Option(
        "--no-wildcards",
        help="Read {a|b}, __lists__ and (weights:1.2) in prompts as plain text.",
        rich_help_panel=PROMPTS,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seed",
        metavar="SEED",
        help="Seed of the first image; image i has SEED + i. Or the seeds of all: 1,2,3 or 1..8."
        "  [default: random, printed]",
        callback=check_seeds,
        rich_help_panel=IMAGE,
    ),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="[URL]",
        help=f"Let a running `unclip serve` make the images.  [URL: {DEFAULT_URL}]",
        rich_help_panel=MODEL,
    ),
]

Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH",
        help="Size, such as 64x64.  [default: the model's own]",
        autocompletion=completion.sizes,
        rich_help_panel=IMAGE,
    ),
]
NegativePrompt = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What the image should not show.", rich_help_panel=IMAGE),
]
Embedding = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Embedding from `unclip embed`, in place of the prior's.",
        rich_help_panel=IMAGE,
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        metavar="crop|pad",
        help="How to make the image square.  [default: crop]",
        autocompletion=completion.one_of(*FITS),
        rich_help_panel=IMAGE,
    ),
]

Steps = Annotated[
    int | None,
    typer.Option(metavar="N", help=f"Decoder denoising steps.{MODELS_DEFAULT}", rich_help_panel=SAMPLING),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="SCALE",
        help=f"Decoder guidance, 0 to {MAX_GUIDANCE}.{MODELS_DEFAULT}",
        rich_help_panel=SAMPLING,
    ),
]
NoiseLevel = Annotated[
    int | None,
    typer.Option(
        metavar="LEVEL",
        help=f"Stable unCLIP: noise on the image embedding, 0 to {MAX_STEPS - 1}.{MODELS_DEFAULT}",
        rich_help_panel=SAMPLING,
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Decoder sampler: {_SAMPLERS}.{MODELS_DEFAULT}",
        autocompletion=completion.one_of(*SAMPLER_NAMES),
        rich_help_panel=SAMPLING,
    ),
]
UpsamplerSteps = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help=f"Upsampler denoising steps.{MODELS_DEFAULT}",
        rich_help_panel=SAMPLING,
    ),
]

Speed = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(SPEEDS),
        help="Tested settings: best are the defaults; on published models, balanced is at least 2 and fast 4 times as "
        "fast. Other options win over them.",
        autocompletion=completion.one_of(*SPEEDS),
        rich_help_panel=SPEED,
    ),
]
Spacing = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Decoder timesteps: {', '.join(SPACING_NAMES[:-1])} or {SPACING_NAMES[-1]}.  [default: uniform]",
        autocompletion=completion.one_of(*SPACING_NAMES),
        rich_help_panel=SPEED,
    ),
]
GuidanceInterval = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Decoder guidance at these noise levels only.  [default: all]",
        rich_help_panel=SPEED,
    ),
]
GuidanceEvery = Annotated[
    int | None,
    typer.Option(metavar="K", help="Compute decoder guidance at every K-th step.  [default: 1]", rich_help_panel=SPEED),
]
CacheEvery = Annotated[
    int | None,
    typer.Option(metavar="K", help="Run all decoder layers at every K-th step.  [default: 1]", rich_help_panel=SPEED),
]
UpsamplerCacheEvery = Annotated[
    int | None,
    typer.Option(metavar="K", help="Run all upsampler layers at every K-th step.  [default: 1]", rich_help_panel=SPEED),
]

PriorSteps = Annotated[
    int | None,
    typer.Option(metavar="N", help=f"Diffusion prior denoising steps.{MODELS_DEFAULT}", rich_help_panel=PRIOR),
]
PriorGuidance = Annotated[
    float | None,
    typer.Option(
        metavar="SCALE",
        help=f"Prior guidance, 0 to {MAX_GUIDANCE}.{MODELS_DEFAULT}",
        rich_help_panel=PRIOR,
    ),
]
PriorSampler = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Diffusion prior sampler, as --sampler.{MODELS_DEFAULT}",
        autocompletion=completion.one_of(*SAMPLER_NAMES),
        rich_help_panel=PRIOR,
    ),
]
PriorTemperature = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help=f"Autoregressive prior temperature; 0 takes the most probable.{MODELS_DEFAULT}",
        rich_help_panel=PRIOR,
    ),
]
PriorTopP = Annotated[
    float | None,
    typer.Option(
        "--prior-top-p",
        metavar="P",
        help=f"Autoregressive prior: sample from the most probable codes, of this probability.{MODELS_DEFAULT}",
        rich_help_panel=PRIOR,
    ),
]

Grid = Annotated[
    bool, typer.Option("--grid", help="Also put all images on one sheet, grid.png.", rich_help_panel=OUTPUT)
]
Labels = Annotated[
    bool, typer.Option("--labels", help="Print prompt and seed below the images of the grid.", rich_help_panel=OUTPUT)
]
Preview = Annotated[
    bool, typer.Option("--preview", help="Also write the image at every step, into previews/.", rich_help_panel=OUTPUT)
]
Open = Annotated[bool, typer.Option("--open", help="Open the result when it is done.", rich_help_panel=OUTPUT)]
History = Annotated[
    bool,
    typer.Option(
        "--history/--no-history", help="Keep the images in the history, see `unclip log`.", rich_help_panel=OUTPUT
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON, one object per line.", rich_help_panel=OUTPUT),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print no progress and no notes.", rich_help_panel=OUTPUT)]


def open_result(path: Path) -> None:
    """Open a file or folder with the desktop's program, or note that there is none."""
    if typer.launch(str(path)) != 0:
        print(f"unclip: note: cannot open {path} on this machine", file=sys.stderr)
