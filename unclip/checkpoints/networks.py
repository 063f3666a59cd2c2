"""Networks from and to component folders: `config.json`, whose `_class_name` selects the class, and `*.safetensors`."""

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save as serialize
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from unclip.checkpoints.config_values import check_divisors, check_types
from unclip.checkpoints.index import FIX
from unclip.checkpoints.tensors import Shapes, check_shapes, read_tensors, tensor_shapes
from unclip.checkpoints.token_embedding import leave_out_shared
from unclip.errors import CheckpointError
from unclip.models.autoregressive_prior import AutoregressiveConfig, AutoregressiveTransformer
from unclip.models.clip import Clip, ClipConfig
from unclip.models.config import diffusers_config
from unclip.models.projection import TextProjection, TextProjectionConfig
from unclip.models.restorer import Restorer, RestorerConfig
from unclip.models.stable_unclip_decoder import ImageNormalizer, ImageNormalizerConfig
from unclip.models.text_encoder import TextEncoderConfig, TransformerTextEncoder
from unclip.requests.values import show
from unclip.system.files import read_json, write_atomic, write_json

SHARD_SIZE = "15MB"  # of a weight file at most, unless a single tensor is larger

EXTRA_VALUES, EXTRA_TENSORS = 1 << 22, 64
"""What a network may have beyond its weight files: masks and tables that are computed."""
MOST_VALUES, MOST_TENSORS = 1 << 34, 1 << 14
"""Sizes that no published network has, for configs without weight files."""

Network = TypeVar("Network", bound=nn.Module)

NATIVE_CLASSES = {  # class and config class by the name in config.json
    "Clip": (Clip, ClipConfig),
    "TextProjection": (TextProjection, TextProjectionConfig),
    "TextEncoder": (TransformerTextEncoder, TextEncoderConfig),
    "ImageNormalizer": (ImageNormalizer, ImageNormalizerConfig),
    "AutoregressiveTransformer": (AutoregressiveTransformer, AutoregressiveConfig),
    "Restorer": (Restorer, RestorerConfig),
}
DIFFUSERS_CLASSES = {
    cls.__name__: cls for cls in (PriorTransformer, UNet2DConditionModel, UNet2DModel, VQModel, AutoencoderKL)
}
ALIASES = {  # names of the published checkpoints
    "UnCLIPTextProjModel": "TextProjection",
    "StableUnCLIPImageNormalizer": "ImageNormalizer",
}

ReadTensors = Callable[[Collection[str]], dict[str, torch.Tensor]]
"""Reads the tensors of the given names onto their device and in their precision. It may return fewer."""


def new_network(name: object, config: Mapping[str, Any]) -> nn.Module:
    """A network of class `name` with fresh weights. Raises CheckpointError for an unknown class or a bad config."""
    known = [*NATIVE_CLASSES, *DIFFUSERS_CLASSES]
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(f"unknown network class {show(name)}; known: {', '.join(known)}")
    try:
        if name in NATIVE_CLASSES:
            cls, settings = NATIVE_CLASSES[name]
            check_types(settings, config)
            return cls(settings(**config))
        check_types(DIFFUSERS_CLASSES[name], config)
        check_divisors(DIFFUSERS_CLASSES[name], config)
        return DIFFUSERS_CLASSES[name](**config)
    except Exception as error:  # the libraries raise many kinds: AssertionError, KeyError, RuntimeError, ...
        raise CheckpointError(f"the config does not fit {name}: {one_line(error)}") from None


def class_name(network: nn.Module) -> str:
    """The name by which config.json and model_index.json select the network's class."""
    names = {cls: name for name, (cls, _) in NATIVE_CLASSES.items()}
    return names.get(type(network), type(network).__name__)


def network_config(network: nn.Module) -> dict[str, Any]:
    """The settings from which `new_network` builds an equal network."""
    config = diffusers_config(network)
    if isinstance(network, tuple(cls for cls, _ in NATIVE_CLASSES.values())):
        return config.to_dict()
    return {key: value for key, value in config.items() if not key.startswith("_")}


def network_settings(network: nn.Module) -> dict[str, Any]:
    """The network's config.json: its settings, and the name of its class."""
    return {"_class_name": class_name(network), **network_config(network)}


def save_network(
    network: nn.Module,
    folder: Path,
    dtype: torch.dtype = torch.float16,
    name: str = "model",
    shard_size: str | None = None,
) -> None:
    """Write config.json and the weights as `dtype`, in shards; replaces each file atomically.

    A token embedding that is CLIP's is left out (see `token_embedding`). Arguments and errors as `save_weights`.
    """
    weights, entries = leave_out_shared(network.state_dict(), folder, dtype)
    save_weights(weights, folder, dtype, name, shard_size)
    write_json(folder / "config.json", network_settings(network) | entries)


def save_weights(
    weights: Mapping[str, torch.Tensor],
    folder: Path,
    dtype: torch.dtype = torch.float16,
    name: str = "model",
    shard_size: str | None = None,
) -> None:
    """Write weights as `dtype`, in shards; replaces each file atomically.

    name: of the weight files, without their suffix. shard_size: of each file at most; None is SHARD_SIZE.
    Raises CheckpointError for a finite weight that overflows in `dtype`.
    """
    tensors = {}
    for key, tensor in weights.items():
        tensor = tensor.detach().cpu()
        tensors[key] = (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        if (tensor.isfinite() & ~tensors[key].isfinite()).any():
            kind = str(dtype).removeprefix("torch.")
            raise CheckpointError(f"{key} holds values beyond {kind}: train with a lower lr, or save as float32")
    from huggingface_hub import split_torch_state_dict_into_shards

    pattern = name + "{suffix}.safetensors"
    index = folder / f"{name}.safetensors.index.json"
    split = split_torch_state_dict_into_shards(
        tensors, filename_pattern=pattern, max_shard_size=shard_size or SHARD_SIZE
    )
    files = split.filename_to_tensors or {f"{name}.safetensors": []}
    for file, names in files.items():
        write_atomic(folder / file, serialize({key: tensors[key] for key in names}))
    if split.is_sharded:
        write_json(index, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    else:
        index.unlink(missing_ok=True)
    for old in {path.name for path in folder.glob("*.safetensors")} - set(files):
        (folder / old).unlink()


def load_network(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network that `save_network` or diffusers saved in `folder`, in evaluation mode and without gradients.

    Raises CheckpointError, with their names, for missing, unexpected or misshapen tensors.
    """
    network = build_empty_network(folder)
    check_shapes(folder, parameter_shapes(network), tensor_shapes(folder))
    return load_weights(network, partial(read_tensors, folder, device, dtype), device)


def build_empty_network(folder: Path) -> nn.Module:
    """The network that a component's config.json describes, with its parameters on the meta device.

    Raises CheckpointError for an unknown class or a config that does not fit it.
    """
    return build_from_config(read_json(folder / "config.json"), tensor_shapes(folder), folder / "config.json")


def build_from_config(config: Mapping[str, Any], shapes: Shapes, path: Path) -> nn.Module:
    """The network that a config describes, with its parameters on the meta device.

    shapes: of the tensors in its weight files. path: of the config, for messages. Raises CheckpointError as
    `build_empty_network`.
    """
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        make = partial(new_network, config.get("_class_name"), settings)
        return make_empty(make, shapes).eval().requires_grad_(False)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; {FIX}") from None


def config_shapes(folder: Path) -> Shapes:
    """The shapes of the parameters that a component's config.json describes, before its weights are downloaded.

    Raises CheckpointError as `build_empty_network`.
    """
    config = read_json(folder / "config.json")
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    made = []

    def make() -> nn.Module:
        made.append(new_network(config.get("_class_name"), settings))
        return made[-1]

    try:
        check_extent(make, MOST_VALUES, MOST_TENSORS)
        return parameter_shapes(made[0] if made else make())  # made again only to raise its error
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}; {FIX}") from None


def make_empty(make: Callable[[], Network], shapes: Shapes) -> Network:
    """The network that `make` makes, with its parameters on the meta device and its buffers in memory.

    shapes: of the tensors in its weight files. Raises CheckpointError for a network that is much larger.
    """
    made: list[Network] = []

    def make_and_keep() -> Network:
        made.append(make())
        return made[-1]

    check_extent(
        make_and_keep, 2 * sum(map(math.prod, shapes.values())) + EXTRA_VALUES, 4 * len(shapes) + EXTRA_TENSORS
    )
    if made and not computes_tensors(made[0]):
        return made[0]
    thread = get_ident()

    def empty(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or get_ident() != thread:
            return None  # unchanged
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    hook = register_module_parameter_registration_hook(empty)  # pyright: ignore[reportArgumentType]
    try:
        with NoInitialization():
            return make()
    finally:
        hook.remove()


def check_extent(make: Callable[[], nn.Module], values: int, tensors: int) -> None:
    """Raise CheckpointError if the network that `make` makes has more values or tensors than these.

    It is made on the meta device, before its buffers take any memory: a config can ask for terabytes. Other errors of
    `make` are ignored.
    """
    thread, left = get_ident(), {"values": values, "tensors": tensors}

    def count(_module: nn.Module, _name: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None and get_ident() == thread:  # hooks see the networks of all threads
            left["values"] -= tensor.numel()
            left["tensors"] -= 1
            if min(left.values()) < 0:
                raise CheckpointError("the config asks for a larger network than the weight files hold")

    hooks = (register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count))
    try:
        with suppress(Exception), torch.device("meta"), NoInitialization():
            make()
    finally:
        for hook in hooks:
            hook.remove()
    if min(left.values()) < 0:
        raise CheckpointError("the config asks for a larger network than the weight files hold")


class NoInitialization(TorchFunctionMode):
    """Within this context, tensors on the meta device are not initialized: they have no values.

    torch would import all of torch._dynamo to compute the shape of `2 * x` on that device.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if func in (torch.randn, torch.rand):
            return torch.empty(*args, **{key: value for key, value in kwargs.items() if key != "generator"})
        tensor = next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
        if tensor is not None and tensor.is_meta:
            if name in _INITIALIZERS:
                return tensor
            if name in _SCALINGS and all(value is tensor or isinstance(value, int | float) for value in args):
                return tensor.detach()
        return func(*args, **kwargs)


_INITIALIZERS = {
    *("normal_", "uniform_", "trunc_normal_", "zero_", "zeros_", "ones_", "fill_", "constant_", "mul_", "add_"),
    *("clamp_", "erfinv_", "copy_", "triu_", "tril_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"),
    "xavier_normal_",
}
"""Functions that only set the values of a tensor, and return it."""
_SCALINGS = {"mul", "__mul__", "__rmul__", "div", "__truediv__", "__rtruediv__", "neg", "exp", "log"}
"""Functions of a tensor and a number whose result has the shape of the tensor."""


def computes_tensors(network: nn.Module) -> bool:
    """Whether a network has tensors beside its parameters: buffers, or plain attributes."""
    return any(
        module._buffers or any(isinstance(value, torch.Tensor) for value in vars(module).values())
        for module in network.modules()
    )


def parameter_shapes(network: nn.Module) -> Shapes:
    """The shapes of a network's parameters and persistent buffers."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def load_weights(network: nn.Module, read: ReadTensors, device: torch.device | str) -> nn.Module:
    """Read the weights of an empty network; returns the network."""
    network.load_state_dict(read(network.state_dict().keys()), strict=True, assign=True)
    return network.to(device).eval().requires_grad_(False)


def one_line(error: Exception) -> str:
    """The message of a library's error on one line of at most 300 characters, else its class."""
    return " ".join(str(error).split())[:300] or type(error).__name__
