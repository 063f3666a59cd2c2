"""`unclip generate`: prompts to images."""

from typing import Annotated

import typer

from unclip.cli import options
from unclip.cli.image_command import ImageOptions, image_command, make_images
from unclip.cli.progress import note
from unclip.cli.prompts import STANDARD_INPUT, read_standard_input
from unclip.errors import InputError


@image_command("generate")
def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="What to show; -n images of each. Or -: standard input, one a line."),
    ] = None,
    size: options.Size = None,
    embedding: options.Embedding = None,
    *,
    shared: ImageOptions,
) -> None:
    """Generate images from prompts.

    \b
    Examples:
      unclip generate "a {red|blue} penguin" -n 4 --seed 7 -o out/
      cat prompts.txt | unclip generate - -o out/
    """
    if not prompts and embedding is None:
        raise InputError("Missing argument 'PROMPT': say what to show, or give --embedding")
    if prompts and len(prompts) > 1 and not any(" " in prompt.strip() for prompt in prompts) and not shared.quiet:
        note(f'{len(prompts)} prompts of one word each; quote a prompt of several words: "{" ".join(prompts)}"')
    own = {"size": size, "embedding": embedding}
    jobs = read_standard_input("generate") if prompts == [STANDARD_INPUT] else [{"prompt": p} for p in prompts or [""]]
    make_images([{**own, **job} for job in jobs], shared)
