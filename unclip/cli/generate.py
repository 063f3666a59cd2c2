"""`unclip generate`: prompts to images."""

from typing import Annotated

import typer

from unclip.cli.drawing import Drawing, draw, with_drawing


@with_drawing
def generate(
    prompts: Annotated[list[str], typer.Argument(metavar="PROMPT", help="What to show.")],
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Such as 64x64. Unset: the model's largest.")] = None,
    *,
    drawing: Drawing,
) -> None:
    """Make images from one or more prompts.

    Example: unclip generate "a penguin on a pink background" -n 4 --seed 7 -o out/
    """
    draw([{"prompt": prompt, "size": size} for prompt in prompts], drawing)  # a Request turns the size into a pair
