"""`unclip show`: what made an image."""

import json
from typing import Annotated

import typer

from unclip import metadata


def show(image: Annotated[str, typer.Argument(metavar="IMAGE", help="A PNG file made by unclip.")]) -> None:
    """Print what made an image, as JSON."""
    print(json.dumps(metadata.read(image), indent=2))
