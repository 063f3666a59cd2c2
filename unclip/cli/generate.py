"""`unclip generate`: prompts to images."""

from typing import Annotated

import typer

from unclip.cli import options
from unclip.cli.image_command import Drawing, draw, with_drawing
from unclip.errors import InputError


@with_drawing("generate")
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="PROMPT", help="What to show.")] = None,
    size: options.Size = None,
    embedding: options.Embedding = None,
    *,
    drawing: Drawing,
) -> None:
    """Make images from one or more prompts.

    Example: unclip generate "a penguin on a pink background" -n 4 --seed 7 -o out/
    """
    if not prompts and embedding is None:
        raise InputError("Missing argument 'PROMPT': say what to show, or give --embedding")
    shared = {"size": size, "embedding": embedding}  # a Request turns the size into a pair
    draw([{"prompt": prompt, **shared} for prompt in prompts or [""]], drawing)
