"""A component's folder <-> a network: `config.json`, whose `_class_name` says what it is, and `*.safetensors`."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save as serialize
from torch import nn

from unclip.checkpoints.tensors import Shapes, check_fit, read_tensors, tensor_shapes
from unclip.errors import CheckpointError
from unclip.models.clip import Clip, ClipConfig
from unclip.models.projection import TextProjection, TextProjectionConfig
from unclip.models.text_encoder import TextEncoder, TextEncoderConfig
from unclip.system.files import read_json, write_atomic, write_json

SHARD_INDEX = "model.safetensors.index.json"
SHARD = "15MB"  # the largest weight file that is written, unless a single tensor is larger
OWN = {
    "Clip": (Clip, ClipConfig),
    "TextProjection": (TextProjection, TextProjectionConfig),
    "TextEncoder": (TextEncoder, TextEncoderConfig),
}
DIFFUSERS = {cls.__name__: cls for cls in (PriorTransformer, UNet2DConditionModel, UNet2DModel)}
ALIASES = {"UnCLIPTextProjModel": "TextProjection"}  # in the published checkpoints

Read = Callable[[Collection[str] | None], dict[str, torch.Tensor]]
"""Names of tensors, or None for all -> the tensors, where and as they are wanted."""


def new_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of class `name` with fresh weights. Raises CheckpointError for an unknown class or a bad config."""
    known = [*OWN, *DIFFUSERS]
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if name not in known:
        raise CheckpointError(f"unknown network class {name!r}; known: {', '.join(known)}")
    try:
        if name in OWN:
            cls, settings = OWN[name]
            return cls(settings(**config))
        return DIFFUSERS[name](**config)
    except Exception as error:  # the libraries object in many ways: asserts, KeyError, RuntimeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"the config does not fit {name}: {reason}") from None


def network_config(network: nn.Module) -> dict[str, Any]:
    """The settings that `new_network` needs to build `network` again."""
    if isinstance(network, tuple(cls for cls, _ in OWN.values())):
        return network.config.to_dict()
    return {key: value for key, value in network.config.items() if not key.startswith("_")}


def save_network(network: nn.Module, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write config.json and the weights, in shards of 15 MB, or one tensor; each file is replaced atomically.

    Raises CheckpointError for a weight that is finite, but not in `dtype`.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        tensors[name] = (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        if (tensor.isfinite() & ~tensors[name].isfinite()).any():
            kind = str(dtype).removeprefix("torch.")
            raise CheckpointError(f"{name} holds values beyond {kind}: train with a lower lr, or save as float32")
    pattern = "model{suffix}.safetensors"
    split = split_torch_state_dict_into_shards(tensors, filename_pattern=pattern, max_shard_size=SHARD)
    for file, names in split.filename_to_tensors.items():
        write_atomic(folder / file, serialize({name: tensors[name] for name in names}))
    if split.is_sharded:
        write_json(folder / SHARD_INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    else:
        (folder / SHARD_INDEX).unlink(missing_ok=True)
    for old in {path.name for path in folder.glob("*.safetensors")} - set(split.filename_to_tensors):
        (folder / old).unlink()
    write_json(folder / "config.json", {"_class_name": type(network).__name__, **network_config(network)})


def load_network(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    """Read what `save_network`, or diffusers, wrote. Strict: missing, unexpected or misshapen tensors are named."""
    network = empty_network(folder)
    check_fit(folder, shapes_of(network), tensor_shapes(folder))
    return filled(network, partial(read_tensors, folder, device, dtype), device)


def empty_network(folder: Path) -> nn.Module:
    """The network of a component's config.json, its parameters on the meta device. Raises CheckpointError."""
    config = read_json(folder / "config.json")
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        with init_empty_weights(include_buffers=False):
            return new_network(config.get("_class_name"), settings).eval().requires_grad_(False)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}; get the checkpoint anew") from None


def shapes_of(network: nn.Module) -> Shapes:
    """The shapes of a network's parameters and persistent buffers."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def filled(network: nn.Module, read: Read, device: torch.device | str) -> nn.Module:
    """An empty network with its weights read."""
    network.load_state_dict(read(None), strict=True, assign=True)
    return network.to(device).eval().requires_grad_(False)
