"""Read `model_index.json`: the components of a checkpoint, their weight files, and their prediction targets."""

import re
from pathlib import Path

from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import read_json

INDEX = "model_index.json"
FIX = "download the checkpoint again"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")

_CONFIG_NAMES = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_PREFERRED_VARIANTS = ("fp16", "bf16", "fp32")  # others follow by name: "non_ema" is worse
_MAX_NAME = 100  # characters, of a component or a model

PIPELINES = (
    *("Unclip", "UnCLIPPipeline", "UnCLIPImageVariationPipeline"),
    *("KandinskyV22Pipeline", "KandinskyV22InpaintPipeline", "KandinskyPipeline", "KandinskyInpaintPipeline"),
    *("StableUnCLIPPipeline", "StableUnCLIPImg2ImgPipeline"),
)
"""The pipelines whose checkpoints load, by their `_class_name` in model_index.json."""


def check_pipeline(index: dict, path: Path) -> None:
    """Raise CheckpointError for the model_index.json of another pipeline, such as Stable Diffusion. path: of it."""
    found = index.get("_class_name")
    if found is not None and found not in PIPELINES:
        raise CheckpointError(
            f"{path} is of a {show(found)}, which is not an unCLIP model that can be used; "
            "give a checkpoint of unclip, Karlo, Kandinsky 2.1 or 2.2, or Stable unCLIP"
        )


def model_name(index: dict, folder: Path) -> str:
    """The name of a checkpoint in records: its index has it, else the folder. Raises CheckpointError for no name."""
    name = index.get("name", folder.name)
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
        raise CheckpointError(
            f"{folder / INDEX}: name is {show(name)}, and should be one line of at most {_MAX_NAME} characters"
        )
    return name


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
            names = (name, *value)
            if not all(part.isidentifier() and len(part) <= _MAX_NAME for part in names):  # "..", "/tmp", "a/b"
                raise CheckpointError(f"{INDEX} leads out of its folder, by {show(name)}: {show(value)}; {FIX}")
            found[name] = value[1]
    return found


def find_weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: the files in its shard index, existing or not, else all of one variant.

    Variants such as model.fp16.safetensors contain the same weights again; one is used if there is nothing else.
    Raises CheckpointError for a damaged index.
    """
    variants: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("[!.]*.safetensors")) + sorted(folder.glob("[!.]*.safetensors.index*.json")):
        variants.setdefault(_variant(path.name), []).append(path)
    order = ["", *_PREFERRED_VARIANTS, *sorted(variants)]
    files = next((variants[variant] for variant in order if variant in variants), [])
    indexes = [path for path in files if path.suffix == ".json"]
    return read_weight_map(indexes[0]) if indexes else files


def read_weight_map(path: Path) -> list[Path]:
    """The files that a shard index names, all in the folder of the index. Raises CheckpointError if it is damaged."""
    files = read_json(path).get("weight_map")
    if not isinstance(files, dict):
        raise CheckpointError(f"{path} has no weight_map; {FIX}")
    for file in files.values():
        if not isinstance(file, str) or not file or file in (".", "..") or re.search(r"[/\\:\0]", file):
            raise CheckpointError(f"{path} names the file {show(file)}, which is not in its folder; {FIX}")
    return sorted(path.parent / file for file in set(files.values()))


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
            indexes = {_shard_index_name(file.name) for file in files if _SHARD.search(file.name)}
            missing += [f"{name}/{index}" for index in sorted(indexes) if not (component / index).is_file()]
    return missing


def _variant(name: str) -> str:
    """ "fp16" of model.fp16.safetensors, its shards and their index; "" of files that are no variant."""
    parts = _SHARD.sub("", name).split(".")[1:]
    return ".".join(part for part in parts if part not in ("safetensors", "index", "json"))


def _shard_index_name(shard: str) -> str:
    """The name of the index to which a shard belongs."""
    stem, variant = _SHARD.sub("", shard).split(".")[0], _variant(shard)
    return f"{stem}.safetensors.index{'.' * bool(variant)}{variant}.json"
