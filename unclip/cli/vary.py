"""`unclip vary`, `interpolate`, `edit` and `reconstruct`: pictures from a picture's embedding and its noise."""

from typing import Annotated

import typer

from unclip.cli import options
from unclip.cli.image_command import Drawing, Film, draw, with_drawing
from unclip.requests.fields import FITS, THETA

Source = Annotated[str, typer.Argument(metavar="IMAGE", help="The image, of any size.")]
Said = Annotated[str, typer.Argument(metavar="[PROMPT]", help="What the image shows, for a decoder that reads text.")]
Fit = Annotated[
    str | None,
    typer.Option(metavar="|".join(FITS), help="How an image becomes a square: its middle, or padded."),
]
Gif = Annotated[bool, typer.Option("--gif", help="Put the sequence into frames.gif in the folder, too.")]
Strip = Annotated[bool, typer.Option("--strip", help="Put the sequence side by side into strip.png in the folder.")]
Frames = Annotated[int | None, typer.Option(help="Images of the sequence, both ends included.")]


@with_drawing("vary")
def vary(
    image: Source,
    prompt: Said = "",
    strength: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="0: the image itself, 1: new noise; between: DDIM's eta."),
    ] = None,
    fit: Fit = None,
    size: options.Size = None,
    *,
    drawing: Drawing,
) -> None:
    """Make other images that show what an image shows.

    Example: unclip vary photo.png -n 4 --strength 0.6 -o variations/
    """
    draw([{"mode": "vary", "image": image, "prompt": prompt, "strength": strength, "fit": fit, "size": size}], drawing)


@with_drawing("interpolate")
def interpolate(
    sources: Annotated[
        list[str], typer.Argument(metavar="A B", help="Two images, prompts or embeddings; more of them with --weights.")
    ],
    frames: Frames = None,
    fraction: Annotated[
        float | None, typer.Option(metavar="0..1", help="Only the image that is so far from A to B.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="1,1,2", help="One image that mixes all of them, by these weights.")
    ] = None,
    same_noise: Annotated[
        bool, typer.Option("--same-noise", help="All from one noise, and not from those of the images.")
    ] = False,
    prompt: Annotated[str, typer.Option(help="What all of them show, for a decoder that reads text.")] = "",
    gif: Gif = False,
    strip: Strip = False,
    fit: Fit = None,
    size: options.Size = None,
    *,
    drawing: Drawing,
) -> None:
    """Make the images on the way from one to another, 9 unless told; both ends are images or prompts.

    Example: unclip interpolate cat.png "a dog on a blue background" --frames 12 --gif
    """
    if frames is None and fraction is None and weights is None and len(sources) == 2 and drawing.best_of is None:
        frames = 9
    job = {"mode": "interpolate", "sources": sources, "prompt": prompt, "frames": frames, "fraction": fraction}
    job |= {"weights": weights, "same_noise": same_noise or None, "fit": fit, "size": size}
    draw([job], drawing, Film(gif, strip))


@with_drawing("edit")
def edit(
    image: Source,
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What it should show.")] = "",
    from_prompt: Annotated[
        str | None, typer.Option("--from", metavar="PROMPT", help="What it shows. Unset: nothing in particular.")
    ] = None,
    theta: Annotated[
        float | None, typer.Option(metavar="0..1", help=f"How far to go; 0.25 to 0.5 is usual. Unset: {THETA}.")
    ] = None,
    embedding: Annotated[
        str | None, typer.Option(metavar="FILE", help="An embedding of `unclip embed` to turn towards, for a prompt.")
    ] = None,
    frames: Frames = None,
    gif: Gif = False,
    strip: Strip = False,
    fit: Fit = None,
    size: options.Size = None,
    *,
    drawing: Drawing,
) -> None:
    """Turn an image towards a prompt, by the difference of two texts, or towards an embedding. With --frames, step by
    step from the image.

    Example: unclip edit penguin.png "a fox" --from "a penguin" --frames 7 --strip
    """
    job = {"mode": "edit", "image": image, "prompt": prompt, "from_prompt": from_prompt, "theta": theta}
    job["embedding"] = embedding
    draw([{**job, "frames": frames, "fit": fit, "size": size}], drawing, Film(gif, strip))


@with_drawing("reconstruct")
def reconstruct(
    image: Source,
    prompt: Said = "",
    components: Annotated[
        str | None, typer.Option(metavar="5,10,20", help="From so many principal components of its embedding alone.")
    ] = None,
    gif: Gif = False,
    strip: Strip = False,
    fit: Fit = None,
    size: options.Size = None,
    *,
    drawing: Drawing,
) -> None:
    """Make an image again from its embedding and its noise: how much of it the model keeps.

    Example: unclip reconstruct photo.png --components 5,10,20,40,80 --strip
    """
    job = {"mode": "reconstruct", "image": image, "prompt": prompt, "components": components, "fit": fit, "size": size}
    draw([job], drawing, Film(gif, strip))
