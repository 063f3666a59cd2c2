"""A checkpoint folder <-> networks: `model_index.json` and one subfolder a component, as diffusers lays it out.

A component's folder holds `config.json`, whose `_class_name` says what it is, and `*.safetensors`, in as many shards
as its index names. Nothing but safetensors is ever read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.transformers.prior_transformer import PriorTransformer
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from unclip.bundled import INDEX, find_checkpoint
from unclip.diffusion.codec import codec
from unclip.diffusion.denoiser import Schedule
from unclip.errors import CheckpointError, RequestError
from unclip.files import read_json, write_atomic, write_json
from unclip.models.clip import Clip, ClipConfig
from unclip.models.decoder import Decoder, TextEncoder, TextEncoderConfig, TextProjection, TextProjectionConfig
from unclip.models.prior import Prior
from unclip.models.upsampler import Upsampler
from unclip.request import Request, parse_size
from unclip.stage import Stage

SHARD_INDEX = "model.safetensors.index.json"
SHARD = "15MB"  # the largest weight file that is written, unless a single tensor is larger
OWN = {
    "Clip": (Clip, ClipConfig),
    "TextProjection": (TextProjection, TextProjectionConfig),
    "TextEncoder": (TextEncoder, TextEncoderConfig),
}
DIFFUSERS = {cls.__name__: cls for cls in (PriorTransformer, UNet2DConditionModel, UNet2DModel)}


@dataclass(frozen=True)
class Checkpoint:
    """What a pipeline is made of."""

    name: str
    clip: Clip
    prior: Stage
    decoder: Stage
    upsamplers: tuple[Stage, ...]
    vocabulary: frozenset[str] | None  # the words of its training captions, where that is a closed set


def load_checkpoint(name: str | Path, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    """Read a whole checkpoint onto `device`, its denoisers in `dtype`; CLIP stays in float32, which costs little."""
    folder = find_checkpoint(name)
    index = read_json(folder / INDEX)
    stages = {part: settings(folder, index, part) for part in ("prior", "decoder")}
    if "upsampler" in index["stages"]:
        stages["upsampler"] = settings(folder, index, "upsampler")

    def network(component: str, kind: type[nn.Module], precision: torch.dtype = dtype) -> Any:
        module = load_network(folder / component, device, precision)
        if not isinstance(module, kind):
            found = type(module).__name__
            raise CheckpointError(
                f"{folder / component} holds a {found}, not a {kind.__name__}; get the checkpoint anew"
            )
        return module

    def stage(part: str, module: nn.Module, **shape: Any) -> Stage:
        schedule = Schedule.from_config(read_json(folder / f"{part}_scheduler" / "scheduler_config.json"))
        defaults = {key: stages[part][key] for key in ("sampler", "steps", "guidance")}
        return Stage(part, module.to(memory_format=torch.channels_last).eval(), schedule, **shape, **defaults)

    def pictures(part: str, unet: nn.Module) -> dict[str, Any]:
        space, shape = stages[part]["codec"], stages[part]["shape"]
        if unet.config.out_channels not in (shape[0], 2 * shape[0]):  # twice as many with a learned variance
            channels = unet.config.out_channels
            raise CheckpointError(f"{folder / INDEX}: the codec of the {part} does not fit its {channels} channels")
        return {"shape": shape, "codec": space}

    clip = network("clip", Clip, torch.float32)
    prior = stage("prior", Prior(network("prior", PriorTransformer)), shape=(clip.config.embed_dim,))
    unet = network("decoder", UNet2DConditionModel)
    drawn = pictures("decoder", unet)
    own_text = network("decoder_text", TextEncoder) if "decoder_text" in index else None
    projection = network("text_proj", TextProjection)
    decoder = stage("decoder", Decoder(projection, unet, drawn["shape"][0], own_text), **drawn)
    upsamplers = []
    if "upsampler" in stages:
        unet = network("upsampler", UNet2DModel)
        upsamplers.append(stage("upsampler", Upsampler(unet), **pictures("upsampler", unet)))
    name = str(index.get("name", folder.name))
    return Checkpoint(name, clip, prior, decoder, tuple(upsamplers), read_vocabulary(folder))


def settings(folder: Path, index: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A stage's sampler, steps and guidance, and of one that draws pictures the codec and the shape in its space.

    Raises CheckpointError for anything that is missing or that no stage can have.
    """
    stages = index.get("stages")
    stage = stages.get(part) if isinstance(stages, dict) else None
    if not isinstance(stage, dict):
        raise CheckpointError(f"{folder / INDEX} lists no {part}: train it, or get the checkpoint anew")
    for key in ("sampler", "steps", "guidance", *(("codec", "size") if part != "prior" else ())):
        if stage.get(key) is None:
            raise CheckpointError(f"{folder / INDEX} does not say the {key!r} of the {part}; get the checkpoint anew")
    try:
        request = Request(prompt=part, **{key: stage[key] for key in ("sampler", "steps", "guidance")})
        found = {"sampler": request.sampler, "steps": request.steps, "guidance": request.guidance}
        if part != "prior":
            width, height = parse_size(stage["size"])
            found["codec"] = codec(stage["codec"])
            found["shape"] = found["codec"].latent_shape(height, width)
    except (RequestError, CheckpointError, TypeError, ZeroDivisionError) as error:  # the last two: an odd codec
        raise CheckpointError(f"{folder / INDEX}, {part}: {error}; get the checkpoint anew") from None
    return found


def read_vocabulary(folder: Path) -> frozenset[str] | None:
    """The words of the model's training captions; None where they were not a closed set."""
    path = folder / "vocabulary.json"
    if not path.exists():
        return None
    words = read_json(path).get("words")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{path} is damaged: it holds no list of words; get the checkpoint anew")
    return frozenset(words)


def new_network(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A network of class `name` with fresh weights. Raises CheckpointError for an unknown class or a bad config."""
    known = [*OWN, *DIFFUSERS]
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
    config = read_json(folder / "config.json")
    name = config.get("_class_name")
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    try:
        with init_empty_weights(include_buffers=False):
            network = new_network(name, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}; get the checkpoint anew") from None
    tensors = read_tensors(folder, device, dtype)
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    bad = [key for key in wanted.keys() & tensors.keys() if wanted[key] != tuple(tensors[key].shape)]
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has misshapen", sorted(bad))):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{folder} {what} tensors: {', '.join(keys[:3])}{more}; get the checkpoint anew")
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.to(device).eval().requires_grad_(False)


def read_tensors(folder: Path, device: torch.device | str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """All tensors of a component's shards, converted as they are read. Raises CheckpointError for a damaged file."""
    index = folder / SHARD_INDEX
    if index.exists():
        files = read_json(index).get("weight_map")
        if not isinstance(files, dict):
            raise CheckpointError(f"{index} has no weight_map; get the checkpoint anew")
        # Names only: an index does not lead out of its folder.
        paths = sorted({folder / Path(str(file)).name for file in files.values()})
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"no .safetensors file in {folder}; get the checkpoint anew")
    tensors = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    tensor = file.get_tensor(key)
                    tensors[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is missing or damaged ({error}); get the checkpoint anew") from None
    return tensors
