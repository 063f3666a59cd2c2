"""Where the files that come with the package lie, and which folder a model's name stands for. Reads no weights."""

import os
import re
from pathlib import Path

from unclip import hub
from unclip.errors import CheckpointError, DataError, nearest
from unclip.files import read_json

INDEX = "model_index.json"
COMPONENTS = "components.safetensors"
"""The principal components of embeddings, which a checkpoint may have, or get later."""
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def bundled(*parts: str) -> Path:
    """The path of a file or folder that comes with the package, for instance ``bundled("assets", "sprites")``.

    An installed package has them in ``unclip/_bundled/``, put there when the wheel was built; a checkout has them
    in the repository root. Raises DataError when it is in neither place.
    """
    package = Path(__file__).resolve().parent
    for root in (package / "_bundled", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    name = "/".join(parts)
    raise DataError(f"{name} did not come with this installation: reinstall unclip, or run from a full checkout")


def bundled_models() -> list[str]:
    """The names of the models that come with the package."""
    try:
        return sorted(path.parent.name for path in bundled("weights").glob(f"*/{INDEX}"))
    except DataError:
        return []


def find_checkpoint(name: str | Path, download: bool = False) -> Path:
    """A folder, the name of a bundled model, or a hub id ("owner/name", "owner/name@revision") -> its folder.

    A model that is in the hub's cache is taken from there without asking the hub. One that is not is fetched if
    `download` is set. Raises CheckpointError naming what there is.
    """
    if os.path.isfile(Path(name) / INDEX):  # unlike Path.is_file, False for a name that is too long
        return Path(name)
    known = bundled_models()
    if str(name) in known:
        return bundled("weights", str(name))
    if os.path.isdir(name):
        raise CheckpointError(f"{name} has no {INDEX}: give the folder that holds it")
    models = ", ".join(known) or "none"
    if hub.is_id(str(name)):
        folder = hub.cached(str(name))
        if folder is not None and not missing_parts(folder):
            return folder
        if download:
            folder = hub.download(str(name))
            if gone := missing_parts(folder):
                raise CheckpointError(f"{name} on the hub is no checkpoint in safetensors: it has no {gone[0]}")
            return folder
        raise CheckpointError(
            f"no model {str(name)!r} here: get it with `unclip models download {name}`, or give a checkpoint folder, "
            f"or a bundled model: {models}"
        )
    near = nearest(name, known)
    hint = f"did you mean {near!r}? " if near else ""
    raise CheckpointError(
        f"no model {str(name)!r}: {hint}Give a checkpoint folder, a hub id (owner/name), or a bundled model: {models}"
    )


def predicted(folder: Path, stage: str) -> str:
    """What a stage's network says: the `prediction_type` of its scheduler, or "difference" (see `Upsampler`)."""
    stages = read_json(folder / INDEX).get("stages")
    entry = stages.get(stage) if isinstance(stages, dict) else None
    if isinstance(entry, dict) and entry.get("difference"):
        return "difference"
    config = read_json(folder / f"{stage}_scheduler" / "scheduler_config.json")
    return str(config.get("prediction_type", "epsilon"))


def components(index: dict) -> dict[str, str]:
    """The components that a model_index.json lists, and their classes. Raises CheckpointError for one outside."""
    found = {}
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
            if not all(part.isidentifier() for part in (name, *value)):  # "..", "/tmp", "a/b"
                raise CheckpointError(f"{INDEX} leads out of its folder, by {name!r}: {value}; get the checkpoint anew")
            found[name] = value[1]
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component, whether or not they exist: those of its index, or all that are no variant.

    Variants, such as model.fp16.safetensors, hold the same weights again. Raises CheckpointError for a damaged index.
    """
    indexes = [path for path in folder.glob("*.safetensors.index.json") if path.name.count(".") == 3]
    if not indexes:
        return sorted(path for path in folder.glob("*.safetensors") if path.name.count(".") == 1)
    files = read_json(indexes[0]).get("weight_map")
    if not isinstance(files, dict):
        raise CheckpointError(f"{indexes[0]} has no weight_map; get the checkpoint anew")
    # Names only: an index does not lead out of its folder.
    return sorted({folder / Path(str(file)).name for file in files.values()})


def missing_parts(folder: Path) -> list[str]:
    """What a half-fetched checkpoint lacks: paths relative to the folder."""
    if not (folder / INDEX).is_file():
        return [INDEX]
    missing = []
    for name in components(read_json(folder / INDEX)):
        part = folder / name
        known = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
        if not any((part / config).is_file() for config in known):
            missing.append(f"{name}/config.json")
        elif (part / "tokenizer_config.json").is_file():
            if not any((part / words).is_file() for words in ("vocab.json", "tokenizer.json")):
                missing.append(f"{name}/vocab.json")
        elif (part / "config.json").is_file():
            files = weight_files(part) or [part / "model.safetensors"]
            missing += [f"{name}/{file.name}" for file in files if not file.is_file()]
            shards = {match[1] for file in files if (match := _SHARD.fullmatch(file.name))}
            indexes = (f"{stem}.safetensors.index.json" for stem in sorted(shards))
            missing += [f"{name}/{index}" for index in indexes if not (part / index).is_file()]
    return missing
