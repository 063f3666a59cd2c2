"""`unclip log`: the images that the commands made on this machine."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from unclip.cli import checks, history, options
from unclip.cli.progress import note


def log(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="SEARCH", help="Words of the prompt, the file, the model or the mode.")
    ] = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Show the newest N.", callback=checks.at_least_one)] = 20,
    clear: Annotated[bool, typer.Option("--clear", help="Delete the history. The images stay.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show the history: the images of the commands for single images, the newest first.

    It is a file of this user on this machine. `unclip again @12` and `unclip reproduce @12` make image 12 of it again.
    The setting history = false, or --no-history, keeps images out of it. Batches have manifests in its place, and what
    `unclip serve` generates for others is never in it.

    \b
    Examples:
      unclip log penguin pink
      unclip again @12 --steps 20
    """
    path = history.history_file()
    if clear:
        count = history.clear(path)
        print(f"{count:,} images deleted from the history; their files stay")
        return
    found = history.search(path, words or [], n)
    for entry in found:
        record = entry.record
        if as_json:
            fields = {"id": entry.id, "time": entry.time, "file": entry.file, "exists": Path(entry.file).is_file()}
            print(json.dumps({**fields, "options": entry.options, **record}))
            continue
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.time))
        gone = "" if Path(entry.file).is_file() else "  (the file is gone)"
        prompt = " ".join(str(record["request"]["prompt"]).split())
        print(f"@{entry.id}  {when}  {record['request']['mode']}  seed {record['seed']}  {prompt}  {entry.file}{gone}")
    if not found and not as_json:
        note("the history has no such image" if words else "the history is empty")
