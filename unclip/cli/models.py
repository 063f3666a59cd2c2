"""`unclip models`: the models that came along, and what is in one. Reads their files; loads no weights."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from unclip.bundled import INDEX, bundled_models, find_checkpoint
from unclip.errors import CheckpointError
from unclip.files import read_json

CARD_LINES = 12
_MAX_JSON = 100 << 20  # bytes; safetensors itself allows headers up to this

app = typer.Typer(help="The models that came along, and what is in one.", rich_markup_mode=None, no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List the models that came with the package."""
    if not bundled_models():
        raise CheckpointError("no model came with this installation; reinstall unclip, or use a full checkout")
    for name in bundled_models():
        folder = find_checkpoint(name)
        index = read_json(folder / INDEX)
        total = sum(count for _, count in components(folder, index))
        print(f"{name}  {', '.join(sizes(folder, index))}  {_millions(total)} parameters")


@app.command("show")
def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or a checkpoint folder.")],
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
    print(f"sizes       {', '.join(sizes(folder, index)) or 'unknown'}")
    for component, count in components(folder, index):
        print(f"{component:<12}{_millions(count)} parameters")
    print(json.dumps(index, indent=2))


def components(folder: Path, index: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """(component, number of parameters), counted in the headers of the weight files."""
    for component, value in index.items():
        files = sorted((folder / component).glob("*.safetensors")) if isinstance(value, list) else []
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
        return sum(math.prod(entry["shape"]) for key, entry in header.items() if key != "__metadata__")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{file} is damaged: it has no safetensors header; copy it anew") from error


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
