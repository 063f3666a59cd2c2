"""Read `model_index.json`: the components of a checkpoint and their weight files."""

import re
from pathlib import Path

from unclip.errors import CheckpointError
from unclip.system.files import read_json

INDEX = "model_index.json"

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")

PICKLES = (".bin", ".pt", ".pth", ".ckpt")


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
