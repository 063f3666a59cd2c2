"""`unclip inpaint` and `unclip outpaint`: repaint a part of an image, or paint on beyond its borders."""

import os
from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import options
from unclip.cli.image_command import Drawing, draw, with_drawing
from unclip.errors import InputError
from unclip.requests.fields import ANCHORS, MASK_MODES

Source = Annotated[str, typer.Argument(metavar="IMAGE", help="The image, of any size.")]
Resample = Annotated[
    int | None, typer.Option(help="How often each stretch of the denoising is gone: more joins new to old better.")
]
KeepStyle = Annotated[
    float | None, typer.Option(metavar="0..1", help="How much the image itself guides the edit, against the prompt.")
]


@with_drawing("inpaint")
def inpaint(
    image: Source,
    mask_and_prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MASK] [PROMPT]", help="An image whose white is repainted, and what to paint there."),
    ] = None,
    mask_mode: Annotated[
        str | None, typer.Option(metavar="|".join(MASK_MODES), help="What in the mask is repainted; alpha: the clear.")
    ] = None,
    feather: Annotated[int | None, typer.Option(help="Pixels over which the new fades into the old.")] = None,
    resample: Resample = None,
    keep_style: KeepStyle = None,
    embedding: options.Embedding = None,
    *,
    drawing: Drawing,
) -> None:
    """Repaint what a mask says of an image; all else stays as it is, byte for byte.

    Without a MASK, the image's transparent parts are repainted; without a PROMPT, the image itself says what with.

    Example: unclip inpaint photo.png mask.png "a red hat" -n 4 -o hats/
    """
    mask, prompt = mask_or_prompt(mask_and_prompt or [])
    edit = {"feather": feather, "resample": resample, "keep_style": keep_style, "mask_mode": mask_mode}
    edit["embedding"] = embedding
    draw([{"mode": "inpaint", "prompt": prompt, "image": image, "mask": mask, **edit}], drawing)


@with_drawing("outpaint")
def outpaint(
    image: Source,
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="[PROMPT]", help="What to paint; the bundled model adds nothing if CLIP finds it there."
        ),
    ] = "",
    left: Annotated[int | None, typer.Option(help="Pixels to add there.")] = None,
    right: Annotated[int | None, typer.Option(help="Pixels to add there.")] = None,
    top: Annotated[int | None, typer.Option(help="Pixels to add there.")] = None,
    bottom: Annotated[int | None, typer.Option(help="Pixels to add there.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Of the whole, instead of pixels to add.")] = None,
    anchor: Annotated[
        str | None, typer.Option(metavar="|".join(ANCHORS), help="Where in that size the image goes.")
    ] = None,
    left_prompt: Annotated[str | None, typer.Option(help="What is new beyond that side.")] = None,
    right_prompt: Annotated[str | None, typer.Option(help="The same, to the right.")] = None,
    top_prompt: Annotated[str | None, typer.Option(help="The same, above.")] = None,
    bottom_prompt: Annotated[str | None, typer.Option(help="The same, below.")] = None,
    resample: Resample = None,
    keep_style: KeepStyle = None,
    embedding: options.Embedding = None,
    *,
    drawing: Drawing,
) -> None:
    """Paint on beyond the borders of an image, which itself stays as it is, byte for byte.

    Example: unclip outpaint photo.png "a wide beach" --left 128 --right 128 -o wide.png
    """
    sides = {"left": left, "right": right, "top": top, "bottom": bottom}
    beyond = {"left_prompt": left_prompt, "right_prompt": right_prompt}
    beyond |= {"top_prompt": top_prompt, "bottom_prompt": bottom_prompt}
    canvas = {"size": size, "anchor": anchor, "resample": resample, "keep_style": keep_style}
    canvas["embedding"] = embedding
    draw([{"mode": "outpaint", "prompt": prompt, "image": image, **sides, **beyond, **canvas}], drawing)


def mask_or_prompt(words: list[str]) -> tuple[str | None, str]:
    """The arguments after the image -> (mask, prompt). One alone is a mask if it is a file's name."""
    if len(words) > 2:
        raise InputError(
            f"unexpected argument {words[2]!r}: after the image come a mask and a prompt; quote the prompt"
        )
    if len(words) == 2:
        return words[0], words[1]
    if words and Path(words[0]).suffix and (" " not in words[0] or os.path.isfile(words[0])):
        return words[0], ""
    return None, "".join(words)
