"""`unclip vary`, `interpolate`, `edit` and `reconstruct`: images from an image's CLIP embedding and its noise."""

from typing import Annotated

import typer

from unclip.cli import checks, options
from unclip.cli.image_command import FPS, ImageOptions, SequenceFiles, image_command, make_images
from unclip.errors import InputError
from unclip.requests.fields import THETA

SEQUENCE = "Sequence"  # a section of the help


def check_fps(fps: float) -> None:
    """Raise InputError for a rate that animations cannot have: a GIF counts hundredths of a second."""
    if not 0.1 <= fps <= 50:
        raise InputError(f"--fps must be from 0.1 to 50 images per second, not {fps:g}")


Source = Annotated[str, typer.Argument(metavar="IMAGE", help="Image file, of any size.")]
Caption = Annotated[
    str, typer.Argument(metavar="[PROMPT]", help="What the image shows, for a decoder that reads text.")
]
Frames = Annotated[
    int | None,
    typer.Option(metavar="N", help="Images in the sequence, both ends included.", rich_help_panel=SEQUENCE),
]
Gif = Annotated[bool, typer.Option("--gif", help="Also make an animation, frames.gif.", rich_help_panel=SEQUENCE)]
Mp4 = Annotated[
    bool, typer.Option("--mp4", help="Also make a video, frames.mp4; needs unclip[video].", rich_help_panel=SEQUENCE)
]
Webm = Annotated[
    bool, typer.Option("--webm", help="Also make a video, frames.webm; needs unclip[video].", rich_help_panel=SEQUENCE)
]
Fps = Annotated[
    float,
    typer.Option(
        "--fps",
        metavar="N",
        help="Images per second of animations and videos.",
        callback=checks.checked(lambda _, value: check_fps(value)),
        rich_help_panel=SEQUENCE,
    ),
]
Strip = Annotated[
    bool, typer.Option("--strip", help="Also put the images side by side, strip.png.", rich_help_panel=SEQUENCE)
]


@image_command("vary")
def vary(
    image: Source,
    prompt: Caption = "",
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="Amount of new noise: 0 rebuilds the image, 1 uses new noise alone.  [default: 1]",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    fit: options.Fit = None,
    size: options.Size = None,
    *,
    shared: ImageOptions,
) -> None:
    """Generate variations of an image.

    \b
    Example:
      unclip vary photo.png -n 4 --strength 0.6 -o variations/
    """
    job = {"mode": "vary", "image": image, "prompt": prompt, "strength": strength, "fit": fit, "size": size}
    make_images([job], shared)


@image_command("interpolate")
def interpolate(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="A B", help="Two images, prompts or embedding files; more of them with --weights."),
    ],
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Images in the sequence, both ends included.  [default: 9]", rich_help_panel=SEQUENCE
        ),
    ] = None,
    gif: Gif = False,
    mp4: Mp4 = False,
    webm: Webm = False,
    fps: Fps = FPS,
    strip: Strip = False,
    fraction: Annotated[
        float | None,
        typer.Option(metavar="0..1", help="Generate one image only, this far from A to B.", rich_help_panel=SEQUENCE),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="1,1,2", help="Generate one image only, a mix with these weights.", rich_help_panel=SEQUENCE
        ),
    ] = None,
    same_noise: Annotated[
        bool,
        typer.Option(
            "--same-noise",
            help="Use the seed's noise for all images, not the noise found by inverting the sources.",
            rich_help_panel=SEQUENCE,
        ),
    ] = False,
    prompt: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What the images show; for decoders that read text.", rich_help_panel=options.IMAGE
        ),
    ] = "",
    fit: options.Fit = None,
    size: options.Size = None,
    *,
    shared: ImageOptions,
) -> None:
    """Interpolate between two images, prompts or embeddings.

    \b
    Example:
      unclip interpolate penguin.png fox.png --frames 12 --gif
    """
    if frames is None and fraction is None and weights is None and len(sources) == 2 and shared.best_of is None:
        frames = 9
    job = {
        "mode": "interpolate",
        "sources": sources,
        "prompt": prompt,
        "frames": frames,
        "fraction": fraction,
        "weights": weights,
        "same_noise": same_noise or None,
        "fit": fit,
        "size": size,
    }
    make_images([job], shared, SequenceFiles(gif, strip, mp4, webm, fps))


@image_command("edit")
def edit(
    image: Source,
    prompt: Annotated[str, typer.Argument(metavar="[PROMPT]", help="What the image should show.")] = "",
    from_prompt: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TEXT", help="What the image shows now.  [default: empty]", rich_help_panel=options.IMAGE
        ),
    ] = None,
    theta: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help=f"Strength of the edit; 0.25 to 0.5 is usual.  [default: {THETA}]",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Edit towards an image embedding from `unclip embed`, in place of prompts.",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    fit: options.Fit = None,
    size: options.Size = None,
    frames: Frames = None,
    gif: Gif = False,
    mp4: Mp4 = False,
    webm: Webm = False,
    fps: Fps = FPS,
    strip: Strip = False,
    *,
    shared: ImageOptions,
) -> None:
    """Edit an image by the difference of two prompts.

    The image's embedding is rotated by the difference of the text embeddings, or towards an image embedding. With
    --frames, the result is a sequence from the image to the full edit.

    \b
    Example:
      unclip edit penguin.png "a yellow background" --from "a pink background"
    """
    job = {
        "mode": "edit",
        "image": image,
        "prompt": prompt,
        "from_prompt": from_prompt,
        "theta": theta,
        "embedding": embedding,
        "frames": frames,
        "fit": fit,
        "size": size,
    }
    make_images([job], shared, SequenceFiles(gif, strip, mp4, webm, fps))


@image_command("reconstruct")
def reconstruct(
    image: Source,
    prompt: Caption = "",
    components: Annotated[
        str | None,
        typer.Option(
            metavar="5,10,20",
            help="Keep this many principal components of the embedding; one image for each number.",
            rich_help_panel=options.IMAGE,
        ),
    ] = None,
    fit: options.Fit = None,
    size: options.Size = None,
    gif: Gif = False,
    mp4: Mp4 = False,
    webm: Webm = False,
    fps: Fps = FPS,
    strip: Strip = False,
    *,
    shared: ImageOptions,
) -> None:
    """Rebuild an image from its embedding and its noise.

    This shows how much of the image the model keeps.

    \b
    Example:
      unclip reconstruct photo.png --components 5,10,20,40,80 --strip
    """
    job = {"mode": "reconstruct", "image": image, "prompt": prompt, "components": components, "fit": fit, "size": size}
    make_images([job], shared, SequenceFiles(gif, strip, mp4, webm, fps))
