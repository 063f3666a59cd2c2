"""The inpainting decoder: a fine-tuned copy of the decoder, stored without the tensors that are the decoder's own.

Its folder has `config.json`, which lists the tensors in its weight files, by component and name. All others are those
of the decoder's components, of which config.json holds a fingerprint: with another decoder, the copy is useless.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import StrictStr
from torch import Tensor, nn

from unclip.checkpoints.networks import build_from_config, network_settings, parameter_shapes, save_weights
from unclip.checkpoints.settings import FIX, Settings, validate
from unclip.checkpoints.tensors import Shapes, check_shapes, read_first_rows, read_tensors, tensor_shapes
from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import read_json, write_json

NAME = "inpainting_decoder"
"""The name of the component."""
PARTS = ("decoder", "text_proj", "decoder_text")
"""The components of the decoder."""
DISTILLED = ("time_cond_proj_dim",)
"""Settings that a distillation changes: the copy of a distilled decoder's teacher has others."""


class CopySettings(Settings):
    """config.json of a copy.

    shared    fingerprint of the tensors that are the decoder's (see `fingerprint`)
    tensors   the tensors in the copy's weight files, as "component.name"
    networks  config of each network that has such tensors, by component
    """

    shared: StrictStr
    tensors: frozenset[StrictStr]
    networks: dict[StrictStr, dict[str, Any]]


@dataclass(frozen=True)
class DecoderCopy:
    """A copy whose files fit one another and the decoder.

    folder    of the copy
    tensors   names of its own tensors, by component
    networks  networks without weights, for the components that have such tensors; the others are the decoder's
    """

    folder: Path
    tensors: Mapping[str, frozenset[str]]
    networks: Mapping[str, nn.Module]


def open_copy(model: Path) -> DecoderCopy:
    """The copy in a checkpoint folder, checked without reading its weights.

    Raises CheckpointError for missing, unexpected or misshapen tensors, with their names, for a config that is damaged,
    and if the copy was made of another decoder.
    """
    folder, path = model / NAME, model / NAME / "config.json"
    settings = validate(CopySettings, read_json(path), str(path))
    found = tensor_shapes(folder)
    names = {part: frozenset(_names_of(settings.tensors, part)) for part in settings.networks}
    if unknown := sorted(settings.tensors - {f"{part}.{name}" for part in names for name in names[part]}):
        raise CheckpointError(f"{path} describes no network for the tensor {show(unknown[0])}; {FIX}")
    networks, own = {}, {}
    for part, config in settings.networks.items():
        if part not in PARTS:
            raise CheckpointError(f"{path} describes a network {show(part)}, which a decoder does not have; {FIX}")
        check_config(config, model / part / "config.json", path)
        base = tensor_shapes(model / part)
        networks[part] = build_from_config(config, base | _shapes_of(found, part), path)
        shapes = parameter_shapes(networks[part])
        if unknown := sorted(names[part] - shapes.keys()):
            raise CheckpointError(f"{path} lists a tensor {show(unknown[0])}, which the {part} does not have; {FIX}")
        # The decoder may have further tensors, which a later training gave it.
        shared = {name: shape for name, shape in shapes.items() if name not in names[part]}
        check_shapes(model / part, shared, {name: shape for name, shape in base.items() if name in shared})
        own |= {f"{part}.{name}": shapes[name] for name in names[part]}
    check_shapes(folder, own, found)
    if fingerprint(model, settings.tensors) != settings.shared:
        raise CheckpointError(
            f"{folder} was made of another decoder than {model / 'decoder'}: train the inpainting decoder again, or "
            f"{FIX}"
        )
    return DecoderCopy(folder, names, networks)


def check_config(config: Mapping[str, Any], base: Path, path: Path) -> None:
    """Raise CheckpointError if the settings of a copy's network differ from those in `base`, the decoder's config.

    Settings that only one of the two has are not compared. path: of the copy's config, for messages.
    """
    for key, value in read_json(base).items():
        if key in config and key not in DISTILLED and config[key] != value and (key[0] != "_" or key == "_class_name"):
            raise CheckpointError(f"{path} has {show(key)} = {show(config[key])}, and {base} {show(value)}; {FIX}")


def fingerprint(model: Path, exclude: frozenset[str] = frozenset()) -> str:
    """A hash of the decoder's tensors but those in `exclude`: the names, and the first row of each in float16.

    It is the same for the same values in other files, also in CLIP's, or in float32. Training changes every row.
    """
    rows: dict[str, Tensor] = {}
    for part in PARTS:
        if (model / part / "config.json").is_file():
            rows |= {f"{part}.{name}": row for name, row in read_first_rows(model / part).items()}
    digest = hashlib.sha256()
    for name in sorted(rows.keys() - exclude):
        row = rows[name]
        digest.update(name.encode() + row.to(torch.float16).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_copy(networks: Mapping[str, nn.Module], model: Path) -> None:
    """Write those tensors of a copy that differ, in float16, from the decoder's in a checkpoint folder.

    networks: of the copy, by component. Raises CheckpointError for a finite weight that overflows.
    """
    configs = {part: network_settings(network) for part, network in networks.items()}
    _write(model, configs, {part: network.state_dict() for part, network in networks.items()})


def keep_copy(source: Path, model: Path) -> None:
    """Write the copy of a checkpoint folder into another, which has another decoder. The copy stays as it is."""
    own = read_tensors(source / NAME, "cpu", torch.float16)
    open_copy(source)
    configs, tensors = {}, {}
    for part in PARTS:
        if (source / part / "config.json").is_file():
            configs[part] = read_json(source / part / "config.json")
            changed = {name: own[f"{part}.{name}"] for name in _names_of(own, part)}
            tensors[part] = read_tensors(source / part, "cpu", torch.float16) | changed
    _write(model, configs, tensors)


def _write(model: Path, configs: Mapping[str, dict[str, Any]], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    changed: dict[str, Tensor] = {}
    for part, own in tensors.items():
        base = read_tensors(model / part, "cpu", torch.float16)
        for name, tensor in own.items():
            tensor = tensor.detach().cpu()
            if name not in base or not torch.equal(tensor.to(torch.float16), base[name]):
                changed[f"{part}.{name}"] = tensor
    save_weights(changed, model / NAME)
    config = {
        "shared": fingerprint(model, frozenset(changed)),
        "networks": {part: config for part, config in configs.items() if _names_of(changed, part)},
        "tensors": sorted(changed),
    }
    write_json(model / NAME / "config.json", config)


def is_current(model: Path) -> bool:
    """Whether a checkpoint folder has a copy of the decoder that is there."""
    try:
        open_copy(model)
    except CheckpointError:
        return False
    return True


def _names_of(tensors: Iterable[str], part: str) -> list[str]:
    """The names in a network of those tensors, "component.name", that belong to it."""
    return [name.removeprefix(f"{part}.") for name in tensors if name.startswith(f"{part}.")]


def _shapes_of(shapes: Shapes, part: str) -> Shapes:
    return {name: shapes[f"{part}.{name}"] for name in _names_of(shapes, part)}
