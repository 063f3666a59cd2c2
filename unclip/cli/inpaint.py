"""`unclip inpaint` and `unclip outpaint`: repaint a region of an image, or extend it beyond its borders."""

import os
from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import completion, options
from unclip.cli.image_command import ImageOptions, image_command, make_images
from unclip.errors import InputError
from unclip.requests.fields import ANCHORS, MASK_MODES

EDITING = "Editing"  # a section of the help

Source = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file, of any size.")]
Resample = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help=f"RePaint resampling passes per step; more blend better and cost more.{options.MODELS_DEFAULT}",
        rich_help_panel=EDITING,
    ),
]
KeepStyle = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        help="Weight of the image's own CLIP embedding against the prompt's.  [default: 0; 1 without a prompt]",
        rich_help_panel=EDITING,
    ),
]


@image_command("inpaint")
def inpaint(
    image: Source,
    mask_and_prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MASK] [PROMPT]", help="Mask file, white where to repaint, and what to show there."),
    ] = None,
    mask_mode: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(MASK_MODES),
            autocompletion=completion.one_of(*MASK_MODES),
            help="Which pixels of the mask are repainted; alpha: transparent ones.  [default: white]",
            rich_help_panel=EDITING,
        ),
    ] = None,
    feather: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", help="Width of the blend inside the region.  [default: 0]", rich_help_panel=EDITING
        ),
    ] = None,
    resample: Resample = None,
    keep_style: KeepStyle = None,
    embedding: options.Embedding = None,
    *,
    shared: ImageOptions,
) -> None:
    """Repaint the masked region of an image.

    All other pixels stay identical. Without MASK, the transparent pixels of the image are repainted. Without PROMPT,
    the image guides the repainting.

    \b
    Example:
      unclip inpaint photo.png mask.png "a red hat" -n 4 -o hats/
    """
    mask, prompt = split_mask_and_prompt(mask_and_prompt or [])
    job = {
        "mode": "inpaint",
        "prompt": prompt,
        "image": image,
        "mask": mask,
        "mask_mode": mask_mode,
        "feather": feather,
        "resample": resample,
        "keep_style": keep_style,
        "embedding": embedding,
    }
    make_images([job], shared)


@image_command("outpaint")
def outpaint(
    image: Source,
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What to show beyond the borders.")] = "",
    left: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pixels to add on the left.", rich_help_panel=EDITING)
    ] = None,
    right: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pixels to add on the right.", rich_help_panel=EDITING)
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pixels to add above.", rich_help_panel=EDITING)
    ] = None,
    bottom: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Pixels to add below.", rich_help_panel=EDITING)
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of the result, in place of pixels to add.", rich_help_panel=EDITING),
    ] = None,
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE",
            autocompletion=completion.one_of(*ANCHORS),
            help=f"Where in --size the image is: {', '.join(ANCHORS[:-1])} or {ANCHORS[-1]}.  [default: center]",
            rich_help_panel=EDITING,
        ),
    ] = None,
    left_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Prompt for the left side alone.", rich_help_panel=EDITING),
    ] = None,
    right_prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Prompt for the right side alone.", rich_help_panel=EDITING),
    ] = None,
    top_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Prompt for above alone.", rich_help_panel=EDITING)
    ] = None,
    bottom_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Prompt for below alone.", rich_help_panel=EDITING)
    ] = None,
    resample: Resample = None,
    keep_style: KeepStyle = None,
    embedding: options.Embedding = None,
    *,
    shared: ImageOptions,
) -> None:
    """Extend an image beyond its borders.

    The pixels of the image stay identical. Give the pixels to add on each side, or the --size of the result. The
    bundled model adds no object that CLIP already finds in the image.

    \b
    Example:
      unclip outpaint photo.png "a wide beach" --left 128 --right 128 -o wide.png
    """
    job = {
        "mode": "outpaint",
        "prompt": prompt,
        "image": image,
        "left": left,
        "right": right,
        "top": top,
        "bottom": bottom,
        "size": size,
        "anchor": anchor,
        "left_prompt": left_prompt,
        "right_prompt": right_prompt,
        "top_prompt": top_prompt,
        "bottom_prompt": bottom_prompt,
        "resample": resample,
        "keep_style": keep_style,
        "embedding": embedding,
    }
    make_images([job], shared)


def split_mask_and_prompt(words: list[str]) -> tuple[str | None, str]:
    """(mask, prompt) from the arguments after the image. A single one is the mask if it is or looks like a file."""
    if len(words) > 2:
        raise InputError(f"unexpected argument {words[2]!r}: give the image, a mask and a prompt; quote the prompt")
    if len(words) == 2:
        return words[0], words[1]
    if words and (os.path.isfile(words[0]) or " " not in words[0] and Path(words[0]).suffix):
        return words[0], ""
    return None, "".join(words)
