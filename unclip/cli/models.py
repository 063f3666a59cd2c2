"""`unclip models`: list, inspect, check, convert and download models."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from unclip.checkpoints import hub
from unclip.checkpoints.families import (
    default_prior,
    describe_family,
    is_kandinsky_prior,
    takes_prior,
)
from unclip.checkpoints.hub_files import snapshot_identity
from unclip.checkpoints.index import (
    INDEX,
    PIPELINES,
    find_missing_files,
)
from unclip.checkpoints.locate import find_checkpoint, list_bundled_models
from unclip.checkpoints.prior_repository import find_prior_folders
from unclip.cli import checks, completion, options
from unclip.cli.help import CONTEXT, HelpCommand, HelpGroup
from unclip.cli.model_facts import card, components, has_inpainting_inputs, licence, schedules, sizes
from unclip.errors import CheckpointError, InputError
from unclip.requests.values import show
from unclip.system.files import check_writable, read_json, write_atomic

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Model name, checkpoint folder or hub id.", autocompletion=completion.models),
]

app = typer.Typer(
    cls=HelpGroup,
    help="List, inspect, check, convert and download models.",
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings=CONTEXT,
)


@app.command("list", cls=HelpCommand)
def list_models() -> None:
    """List the bundled models and those downloaded from the hub.

    \b
    Example:
      unclip models list
    """
    here = [(name, find_checkpoint(name)) for name in list_bundled_models()]
    for name, folder in hub.list_cached_models():
        with contextlib.suppress(CheckpointError):  # other programs keep their models there too
            if read_json(folder / INDEX).get("_class_name") in PIPELINES:
                here.append((f"{name}@{folder.name}", folder))
    if not here:
        raise CheckpointError("this installation has no bundled model; reinstall unclip, or use a full checkout")
    for name, folder in here:
        if missing := find_missing_files(folder):
            hub_id = name.partition("@")[0]
            print(f"{name}  incomplete: {missing[0]} is missing; `unclip models download {hub_id}` continues")
            continue
        index = read_json(folder / INDEX)
        total = sum(count for _, count in components(folder, index))
        print(f"{name}  {', '.join(sizes(folder, index))}  {_millions(total)} parameters")


@app.command("show", cls=HelpCommand)
def show_model(
    name: Name,
    vocabulary: Annotated[
        bool, typer.Option("--vocabulary", help="Show the words that the model was trained on, in groups.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --vocabulary: write them as a page with a thumbnail of each object."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --vocabulary: print JSON, a group per line.")] = False,
) -> None:
    """Show a model's card, sizes, parts and schedules.

    \b
    Examples:
      unclip models show stickers
      unclip models show stickers --vocabulary --html words.html
    """
    if (html is not None or as_json) and not vocabulary:
        raise InputError(f"{'--html' if html is not None else '--json'} is of the words: give --vocabulary too")
    if html is not None:
        check_writable(html.parent)
    folder = find_checkpoint(name)
    index = read_json(folder / INDEX)
    if vocabulary:
        _show_vocabulary(name, folder, html, as_json)
        return
    for line in card(folder):
        print(line)
    print(f"folder      {folder}")
    if known := snapshot_identity(folder):
        print(f"revision    {known[1]}")
    print(f"licence     {licence(folder) or 'unknown'}")
    print(f"family      {describe_family(index, has_inpainting_inputs(folder))}")
    print(f"sizes       {', '.join(sizes(folder, index)) or 'unknown'}")
    parts = [("", folder)]
    if default_prior(index) is not None:
        try:
            [prior] = find_prior_folders(folder, index, download=False)
        except CheckpointError as error:
            print(f"prior       {error}")
        else:
            print(f"prior       {prior}")
            parts.append(("prior/", prior))
    elif takes_prior(index):
        print("prior       none: give one by --prior for text, such as kakaobrain/karlo-v1-alpha")
    for prefix, part in parts:
        for component, count in components(part, read_json(part / INDEX)):
            print(f"{prefix + component:<24}{_millions(count)} parameters")
        for line in schedules(part, prefix):
            print(line)
    print(json.dumps(index, indent=2))


@app.command("check", cls=HelpCommand)
def check_model(
    name: Name,
) -> None:
    """Check every file of a model against its config and its hash, without running it.

    \b
    Example:
      unclip models check stickers
    """
    folder = find_checkpoint(name)

    from unclip.checkpoints.verify import check_checkpoint

    wrong = 0
    for component, found, is_right in check_checkpoint(folder):
        wrong += not is_right
        print(f"{'ok   ' if is_right else 'WRONG'}  {component:<24}{found}")
    if wrong:
        raise CheckpointError(f"components of {name} that cannot be used: {wrong}; download the checkpoint again")


@app.command("convert", cls=HelpCommand)
def convert_model(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Checkpoint folder with .bin, .pt or .ckpt files.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="New folder.  [default: beside the pickles]")
    ] = None,
) -> None:
    """Convert pickled weights to safetensors, without running any code in them.

    \b
    Example:
      unclip models convert old/ -o new/
    """
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder; give the folder of a checkpoint")

    from unclip.checkpoints.convert import convert_checkpoint

    for line in convert_checkpoint(path, out):
        print(line, flush=True)


@app.command("components", cls=HelpCommand)
def make_components(
    name: Name,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Images to use.  [default: rendered sticker scenes]"),
    ] = None,
    count: Annotated[int, typer.Option(metavar="N", help="Use at most N images.", callback=checks.at_least_one)] = 4096,
    image_encoder: options.ImageEncoder = None,
    prior: options.PriorModel = None,
    device: options.Device = "auto",
) -> None:
    """Compute and store the principal components that `unclip reconstruct --components` needs.

    \b
    Example:
      unclip models components runs/mine/model --images photos/
    """
    folder = find_checkpoint(name, download=True)
    check_writable(folder)
    if images is None and not (folder / "vocabulary.json").is_file():
        raise InputError(f"{name} was not trained on sticker scenes; give images by --images FOLDER")

    from unclip.pipeline import Unclip
    from unclip.training import principal_components as principal

    given = None if images is None else principal.images_in(images, count)  # before the model is loaded
    pipe = Unclip.from_pretrained(folder, device=device, image_encoder=image_encoder, prior=prior)
    if given is None:
        model = pipe.model
        assert model.vocabulary is not None  # its file is there, see above
        found = principal.scene_images(count, model.clip.config.image_size, model.vocabulary, model.styles)
    else:
        found = given
    print(principal.make_components(pipe.embed_image, found, folder))


@app.command("download", cls=HelpCommand)
def download_model(
    name: Annotated[str, typer.Argument(metavar="ID", help="owner/name, or owner/name@revision.")],
) -> None:
    """Download a model, and the prior that belongs to it, from the hub into its cache; files there are kept.

    \b
    Example:
      unclip models download kakaobrain/karlo-v1-alpha
    """
    hub_id = hub.parse_hub_id(name)
    if hub_id is None:
        raise CheckpointError(f"{show(name)} is not a hub id; give owner/name, such as kakaobrain/karlo-v1-alpha")
    folder = hub.download(hub_id)
    if missing := find_missing_files(folder):
        raise CheckpointError(f"{hub_id} on the hub is not a checkpoint in safetensors: {missing[0]} is missing")
    print(f"{folder}  revision {folder.name}", flush=True)
    index = read_json(folder / INDEX)
    if is_kandinsky_prior(index):
        print("unclip: note: this is a prior alone; give it by --prior, with a decoder by --model", file=sys.stderr)
    for prior in find_prior_folders(folder, index):
        print(f"{prior}  revision {prior.name}")


def _show_vocabulary(name: str, folder: Path, html: Path | None, as_json: bool) -> None:
    """Print the words of the captions that the model was trained on, in groups; or write them as a page."""
    if not (folder / "vocabulary.json").is_file():
        raise CheckpointError(f"model {name!r} has no list of words: any prompt will do")
    words = read_json(folder / "vocabulary.json").get("words")

    from unclip.stickers.word_table import word_groups, word_lines, word_page

    groups = word_groups([str(word) for word in words] if isinstance(words, list) else [])
    if html is not None:
        print(write_atomic(html, word_page(name, groups).encode()))
    elif as_json:
        for title, rows in groups.items():
            print(json.dumps({"group": title, "words": rows}))
    else:
        print("\n".join(word_lines(groups)))


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"
