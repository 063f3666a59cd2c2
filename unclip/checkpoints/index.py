"""Read `model_index.json`: the components of a checkpoint, their weight files, and their prediction targets."""

import re
from pathlib import Path

from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import read_json

INDEX = "model_index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")

_CONFIG_NAMES = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")


def prediction_target(folder: Path, stage: str) -> str:
    """The prediction target of a stage: its scheduler's `prediction_type`, or "difference" (see `Upsampler`)."""
    stages = read_json(folder / INDEX).get("stages")
    entry = stages.get(stage) if isinstance(stages, dict) else None
    if isinstance(entry, dict) and entry.get("difference"):
        return "difference"
    config = read_json(folder / f"{stage}_scheduler" / "scheduler_config.json")
    return str(config.get("prediction_type", "epsilon"))


def component_classes(index: dict) -> dict[str, str]:
    """The class name of each component of a model_index.json.

    Raises CheckpointError if a name could lead out of the checkpoint's folder.
    """
    found = {}
    for name, value in index.items():
        if isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value):
            if not all(part.isidentifier() for part in (name, *value)):  # "..", "/tmp", "a/b"
                raise CheckpointError(
                    f"{INDEX} leads out of its folder, by {show(name)}: {show(value)}; download the checkpoint again"
                )
            found[name] = value[1]
    return found


def find_weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: the files in its shard index, existing or not, else all except variants.

    Variants such as model.fp16.safetensors contain the same weights again. Raises CheckpointError for a damaged index.
    """
    indexes = [path for path in folder.glob("*.safetensors.index.json") if path.name.count(".") == 3]
    if not indexes:
        return sorted(path for path in folder.glob("*.safetensors") if path.name.count(".") == 1)
    return read_weight_map(indexes[0])


def read_weight_map(path: Path) -> list[Path]:
    """The files that a shard index names, all in the folder of the index. Raises CheckpointError if it is damaged."""
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict):
        raise CheckpointError(f"{path} has no weight_map; download the checkpoint again")
    return sorted({path.parent / Path(str(file)).name for file in files.values()})  # the name only: stay in the folder


def find_missing_files(folder: Path) -> list[str]:
    """The files that an incomplete checkpoint lacks, as paths relative to the folder."""
    if not (folder / INDEX).is_file():
        return [INDEX]
    missing = []
    for name in component_classes(read_json(folder / INDEX)):
        component = folder / name
        if not any((component / config).is_file() for config in _CONFIG_NAMES):
            missing.append(f"{name}/config.json")
        elif (component / "tokenizer_config.json").is_file():
            if not any((component / vocabulary).is_file() for vocabulary in ("vocab.json", "tokenizer.json")):
                missing.append(f"{name}/vocab.json")
        elif (component / "config.json").is_file():
            files = find_weight_files(component) or [component / "model.safetensors"]
            missing += [f"{name}/{file.name}" for file in files if not file.is_file()]
            shards = {match[1] for file in files if (match := _SHARD.fullmatch(file.name))}
            indexes = (f"{stem}.safetensors.index.json" for stem in sorted(shards))
            missing += [f"{name}/{index}" for index in indexes if not (component / index).is_file()]
    return missing
