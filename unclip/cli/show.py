"""`unclip show`: the record stored in an image."""

import json
import sys
from typing import Annotated

import typer

from unclip.cli import options
from unclip.errors import DataError
from unclip.images import metadata


def show(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="PNG, JPEG or WebP files made by unclip.")],
    as_json: options.Json = False,
) -> None:
    """Show how an image was made: the record stored in it.

    With --json each record is one line, with the name of the file.

    \b
    Example:
      unclip show out/*.png --json
    """
    failed = 0
    for image in images:
        try:
            found = metadata.read(image)
        except DataError as error:
            if len(images) == 1:
                raise
            print(f"unclip: error: {error}", file=sys.stderr)
            failed += 1
            continue
        print(json.dumps({"file": image, **found}) if as_json else json.dumps(found, indent=2))
    if failed:
        raise typer.Exit(2 if failed == len(images) else 1)
