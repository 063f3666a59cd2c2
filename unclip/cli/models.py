"""`unclip models`: the models that are here, what is in one, and getting others. Loads no weights."""

import contextlib
import json
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from unclip.checkpoints import hub
from unclip.checkpoints.index import INDEX, missing_parts, predicted, weight_files
from unclip.checkpoints.locate import bundled_models, find_checkpoint
from unclip.cli import options
from unclip.errors import CheckpointError, InputError
from unclip.system.choices import check_device
from unclip.system.files import check_writable, read_json

CARD_LINES = 12
CLASSES = ("Unclip", "UnCLIPPipeline", "UnCLIPImageVariationPipeline")  # what can be run
_MAX_JSON = 100 << 20  # bytes; safetensors itself allows headers up to this

app = typer.Typer(
    help="The models that are here, what is in one, and getting others.", rich_markup_mode=None, no_args_is_help=True
)


@app.command("list")
def list_models() -> None:
    """List the models that came with the package, and those that were fetched from the hub."""
    here = [(name, find_checkpoint(name)) for name in bundled_models()]
    for name, folder in hub.cached_models():
        with contextlib.suppress(CheckpointError):  # other software keeps its models there too
            if read_json(folder / INDEX).get("_class_name") in CLASSES:
                here.append((f"{name}@{folder.name}", folder))
    if not here:
        raise CheckpointError("no model came with this installation; reinstall unclip, or use a full checkout")
    for name, folder in here:
        if gone := missing_parts(folder):
            print(f"{name}  incomplete: it lacks {gone[0]}; `unclip models download {name.partition('@')[0]}` goes on")
            continue
        index = read_json(folder / INDEX)
        total = sum(count for _, count in components(folder, index))
        print(f"{name}  {', '.join(sizes(folder, index))}  {_millions(total)} parameters")


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, a checkpoint folder, or a hub id.")],
    vocabulary: Annotated[bool, typer.Option("--vocabulary", help="List the words the model was trained on.")] = False,
) -> None:
    """Show what a model is made of."""
    folder = find_checkpoint(name)
    index = read_json(folder / INDEX)
    if vocabulary:
        _print_vocabulary(name, folder)
        return
    for line in _card(folder):
        print(line)
    print(f"folder      {folder}")
    if known := hub.identity(folder):
        print(f"revision    {known[1]}")
    print(f"licence     {_licence(folder) or 'unknown'}")
    print(f"sizes       {', '.join(sizes(folder, index)) or 'unknown'}")
    for component, count in components(folder, index):
        print(f"{component:<12}{_millions(count)} parameters")
    for line in _schedules(folder):
        print(line)
    print(json.dumps(index, indent=2))


@app.command("check")
def check_model(
    name: Annotated[str, typer.Argument(metavar="PATH", help="A checkpoint folder, a model's name, or a hub id.")],
) -> None:
    """Compare every file of a model with its config and its hash, without running it."""
    folder = find_checkpoint(name)

    from unclip.checkpoints.verify import check

    wrong = 0
    for component, found, right in check(folder):
        wrong += not right
        print(f"{'ok   ' if right else 'WRONG'}  {component:<20}{found}")
    if wrong:
        raise CheckpointError(f"{wrong} of the components of {name} cannot be used; get the checkpoint anew")


@app.command("convert")
def convert_model(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A checkpoint folder with .bin, .pt or .ckpt files.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="A new folder. Unset: beside the pickles.")
    ] = None,
) -> None:
    """Turn weights in pickles into safetensors, with a reader that runs no code they may hold."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder; give the folder of a checkpoint")

    from unclip.checkpoints.convert import convert

    for line in convert(path, out):
        print(line, flush=True)


@app.command("components")
def make_components(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, a checkpoint folder, or a hub id.")],
    pictures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures to learn from. Unset: scenes that are drawn.")
    ] = None,
    count: Annotated[int, typer.Option(help="Of so many pictures at most.")] = 4096,
    image_encoder: options.ImageEncoder = None,
    device: options.Device = "auto",
) -> None:
    """Compute the principal components of a model's embeddings, for `unclip reconstruct`, and store them with it."""
    options.check_at_least_one("--count", count)
    check_device(device)
    folder = find_checkpoint(name, download=True)
    check_writable(folder)
    if pictures is None and not (folder / "vocabulary.json").is_file():
        raise InputError(f"{name} was not trained on scenes that could be drawn; give pictures by --pictures FOLDER")

    from unclip.pipeline import Unclip
    from unclip.training import components as principal

    pipe = Unclip.from_pretrained(folder, device=device, image_encoder=image_encoder)
    if pictures is None:
        found = principal.scene_images(count, pipe.model.clip.config.image_size, pipe.model.vocabulary)
    else:
        found = principal.images_in(pictures, count)
    print(principal.make_components(pipe.embed_image, found, folder))


@app.command("download")
def download_model(
    name: Annotated[str, typer.Argument(metavar="ID", help="owner/name, or owner/name@revision.")],
) -> None:
    """Fetch a model from the hub into its cache; what is there already is not fetched again."""
    if not hub.is_id(name):
        raise CheckpointError(f"{name!r} is no hub id; give owner/name, such as kakaobrain/karlo-v1-alpha")
    folder = hub.download(name)
    if gone := missing_parts(folder):
        raise CheckpointError(f"{name} on the hub is no checkpoint in safetensors: it has no {gone[0]}")
    print(f"{folder}  revision {folder.name}")


def components(folder: Path, index: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(component, number of parameters), counted in the headers of the weight files."""
    for component, value in index.items():
        files = weight_files(folder / component) if isinstance(value, list) else []
        if files:
            yield component, sum(_parameters(file) for file in files)


def sizes(folder: Path, index: dict[str, Any]) -> list[str]:
    """The sizes a model makes, such as ["64x64", "256x256"], small to large.

    Each stage of the index says its "size"; in the published layout the configs of the U-Nets do.
    """
    stages = index.get("stages")
    if isinstance(stages, dict):
        found = [stage.get("size") for stage in stages.values() if isinstance(stage, dict)]
    else:
        configs = [folder / part / "config.json" for part in ("decoder", "super_res_last")]
        found = [read_json(config).get("sample_size") for config in configs if config.is_file()]
    return ["x".join(map(str, size if isinstance(size, list) else (size, size))) for size in found if size]


def _parameters(file: Path) -> int:
    """The number of values in a safetensors file: 8 bytes of header length, then the header as JSON."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _MAX_JSON:
                raise ValueError("the header is too long")
            header = json.loads(stream.read(length))
        count = sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
        if not 0 <= count <= file.stat().st_size * 8:
            raise ValueError("the file is too short for so many")
        return count
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{file} is damaged: it has no safetensors header; copy it anew") from error


def _schedules(folder: Path) -> Iterator[str]:
    """A line on each schedule of a model."""
    for path in sorted(folder.glob("*_scheduler/scheduler_config.json")):
        config = read_json(path)
        told = [str(config[key]) for key in ("prediction_type", "variance_type", "beta_schedule") if config.get(key)]
        stage = path.parent.name.removesuffix("_scheduler")
        if predicted(folder, stage) == "difference":
            told[:1] = ["difference"]
        yield f"{stage:<12}predicts {', '.join(told) or 'what is usual'}"


def _licence(folder: Path) -> str | None:
    """The licence that the front matter of a model card names."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = text.split("---")[1] if text.startswith("---") else ""
    found = re.search(r"^license:[ \t]*(\S.*)$", front, re.MULTILINE)
    return found[1].strip() if found else None


def _card(folder: Path) -> list[str]:
    """The first lines of the model card, without its front matter."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines() if card.is_file() else []
    if lines and lines[0] == "---" and "---" in lines[1:]:
        lines = lines[lines.index("---", 1) + 1 :]
    return [*lines[:CARD_LINES], ""] if lines else []


def _print_vocabulary(name: str, folder: Path) -> None:
    """Print the words of the captions the model was trained on, one a line."""
    if not (folder / "vocabulary.json").is_file():
        raise CheckpointError(f"model {name!r} has no list of words; ask it anything")
    words = read_json(folder / "vocabulary.json").get("words")
    print("\n".join(map(str, words if isinstance(words, list) else [])))


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"
