"""The CLIP towers of a published checkpoint, which transformers wrote, as those of open_clip."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor

from unclip.checkpoints.networks import Read, shapes_of
from unclip.checkpoints.open_clip_tower import OpenClipTower
from unclip.checkpoints.tensors import Shapes, check_fit, read_tensors, tensor_shapes
from unclip.errors import CheckpointError
from unclip.models.clip import Clip, ClipConfig
from unclip.models.tokenizer import is_clip_vocabulary
from unclip.system.files import read_json

# What a config leaves out has transformers' defaults.
TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
}
IMAGE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
TRANSPOSED = ("text.text_projection", "visual.proj")  # open_clip multiplies from the other side


def load_towers(folder: Path, device: torch.device, images: Path | OpenClipTower | None) -> tuple[Clip, Read]:
    """An empty CLIP, and what reads its weights, in float32: the text tower, and that for images if there is one.

    images: the folder of a checkpoint that has one, which may be another than that of the text tower, a tower of
    open_clip, or None. Raises CheckpointError for a config, a tokenizer or tensors that are not those of a CLIP.
    """
    config = clip_config(folder, images)
    try:
        with init_empty_weights(include_buffers=False):
            clip = Clip(config)
    except Exception as error:  # open_clip objects in many ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{folder}: the configs of CLIP do not fit together: {reason}") from None
    sources = sources_of(clip)
    shapes = shapes_of(clip)
    homes = {"text_encoder": folder, **({"image_encoder": images} if isinstance(images, Path) else {})}
    for part, home in homes.items():
        wanted: Shapes = {}
        for name, (component, parts) in sources.items():
            if component == part:
                wanted |= dict.fromkeys(parts, shape_there(name, shapes[name], len(parts)))
        found = {key: s for key, s in tensor_shapes(home / part).items() if not key.endswith(".position_ids")}
        check_fit(home / part, wanted, found)
    check_tokenizer(folder / "tokenizer")
    if not isinstance(images, OpenClipTower):
        return clip, partial(read_towers, homes, device, sources)
    theirs = {name for name, (component, _) in sources.items() if component == "image_encoder"}
    check_fit(images.file, {name: shapes[name] for name in theirs}, images.shapes())
    own = {name: source for name, source in sources.items() if name not in theirs}

    def read(names: Collection[str] | None = None) -> dict[str, Tensor]:
        seen = images.read(device, theirs if names is None else theirs & set(names))
        return {**read_towers(homes, device, own, names), **seen}

    return clip, read


def clip_config(folder: Path, images: Path | OpenClipTower | None) -> ClipConfig:
    """The sizes of both towers, from the configs of transformers. Raises CheckpointError for what open_clip has not."""
    text = tower_config(folder / "text_encoder", TEXT)
    fields = {
        "embed_dim": text["projection_dim"],
        "context_length": text["max_position_embeddings"],
        "vocab_size": text["vocab_size"],
        "text_width": text["hidden_size"],
        "text_layers": text["num_hidden_layers"],
        "text_heads": text["num_attention_heads"],
        "text_mlp_ratio": text["intermediate_size"] / text["hidden_size"],
        "vision_layers": 0,
        "quick_gelu": text["hidden_act"] == "quick_gelu",
        "normalize": False,
        "transformers_tokens": True,
    }
    if isinstance(images, OpenClipTower):
        found = {"embed_dim": images.embed_dim, "quick_gelu": images.quick_gelu}
        for key, value in found.items():
            if value != fields[key]:
                raise CheckpointError(f"{images.name}: {key} is {value}, the text's is {fields[key]}; give another")
        fields |= images.fields
    elif images:
        image = tower_config(images / "image_encoder", IMAGE)
        for key, wanted in (("projection_dim", text["projection_dim"]), ("hidden_act", text["hidden_act"])):
            if image[key] != wanted:
                raise CheckpointError(f"{images / 'image_encoder'}: {key} is {image[key]}, the text's is {wanted}")
        fields |= {
            "image_size": image["image_size"],
            "patch_size": image["patch_size"],
            "vision_width": image["hidden_size"],
            "vision_layers": image["num_hidden_layers"],
            "vision_heads": image["num_attention_heads"],
            "vision_mlp_ratio": image["intermediate_size"] / image["hidden_size"],
            **pixel_config(images / "feature_extractor" / "preprocessor_config.json", image["image_size"]),
        }
    return ClipConfig(**fields)


def tower_config(folder: Path, defaults: Mapping[str, int]) -> dict[str, Any]:
    """One tower's config, checked."""
    path = folder / "config.json"
    config = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, **defaults, **read_json(path)}
    for key in defaults:
        if not isinstance(config[key], int) or isinstance(config[key], bool) or config[key] < 1:
            raise CheckpointError(f"{path} is damaged: {key} is {config[key]!r}; get the checkpoint anew")
    for key, known in (("hidden_act", ("quick_gelu", "gelu")), ("layer_norm_eps", (1e-5,))):
        if config[key] not in known:
            choices = " or ".join(map(str, known))
            raise CheckpointError(f"{path}: {key} is {config[key]!r}, and only {choices} can be run")
    return config


def pixel_config(path: Path, size: int) -> dict[str, Any]:
    """How pictures are made ready for the image tower."""
    config = read_json(path)
    mean, std = config.get("image_mean"), config.get("image_std")
    for values in (mean, std):
        if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise CheckpointError(f"{path} is damaged: it has no image_mean and image_std; get the checkpoint anew")
    shortest = config.get("size", size)
    shortest = shortest.get("shortest_edge") if isinstance(shortest, dict) else shortest
    if shortest != size or config.get("do_center_crop") is False:
        raise CheckpointError(f"{path}: only a resize to {size} pixels and a crop of the centre can be run")
    return {"pixel_mean": tuple(mean), "pixel_std": tuple(std), "center_crop": True}


def check_tokenizer(folder: Path) -> None:
    """Raise CheckpointError unless a tokenizer is CLIP's own, and pads with "!" as the published checkpoints do."""
    config = read_json(folder / "tokenizer_config.json")
    special = folder / "special_tokens_map.json"
    pad = {**config, **(read_json(special) if special.is_file() else {})}.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if pad != "!":
        raise CheckpointError(f"{folder} pads with {pad!r}; only checkpoints that pad with '!' can be run")
    if (folder / "vocab.json").is_file():
        vocabulary: Any = read_json(folder / "vocab.json")
    else:
        model = read_json(folder / "tokenizer.json").get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict) or not is_clip_vocabulary(vocabulary):
        raise CheckpointError(f"{folder} has another vocabulary than CLIP's; get the checkpoint anew")


def sources_of(clip: Clip) -> dict[str, tuple[str, list[str]]]:
    """For each parameter of open_clip's towers: the component and the tensors of transformers that it is made of."""
    names = {
        "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text.positional_embedding": "text_model.embeddings.position_embedding.weight",
        "text.text_projection": "text_projection.weight",
        **{f"text.ln_final.{part}": f"text_model.final_layer_norm.{part}" for part in ("weight", "bias")},
    }
    sources = {name: ("text_encoder", [source]) for name, source in names.items()}
    sources |= blocks_of("text", clip.config.text_layers, "text_encoder", "text_model")
    if clip.visual is not None:
        names = {
            "visual.class_embedding": "vision_model.embeddings.class_embedding",
            "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
            "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
            "visual.proj": "visual_projection.weight",
            **{f"visual.ln_pre.{part}": f"vision_model.pre_layrnorm.{part}" for part in ("weight", "bias")},
            **{f"visual.ln_post.{part}": f"vision_model.post_layernorm.{part}" for part in ("weight", "bias")},
        }
        sources |= {name: ("image_encoder", [source]) for name, source in names.items()}
        sources |= blocks_of("visual", clip.config.vision_layers, "image_encoder", "vision_model")
    return sources


def blocks_of(tower: str, layers: int, component: str, model: str) -> dict[str, tuple[str, list[str]]]:
    """The same for a tower's blocks; open_clip has query, key and value in one."""
    sources = {}
    for i in range(layers):
        ours, theirs = f"{tower}.transformer.resblocks.{i}", f"{model}.encoder.layers.{i}"
        for part in ("weight", "bias"):
            attention = [f"{theirs}.self_attn.{which}_proj.{part}" for which in "qkv"]
            sources[f"{ours}.attn.in_proj_{part}"] = (component, attention)
            for own, other in BLOCK.items():
                sources[f"{ours}.{own}.{part}"] = (component, [f"{theirs}.{other}.{part}"])
    return sources


def shape_there(name: str, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """The shape that each of a parameter's tensors has in transformers."""
    return shape[::-1] if name in TRANSPOSED else (shape[0] // parts, *shape[1:]) if parts > 1 else shape


def read_towers(
    homes: Mapping[str, Path],
    device: torch.device,
    sources: Mapping[str, tuple[str, list[str]]],
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Parameters of open_clip's towers, all or those of `names`, made of transformers' tensors.

    homes: the folder of the checkpoint that each component is in.
    """
    wanted = [name for name in sources if names is None or name in names]
    tensors: dict[str, Tensor] = {}
    for component in {sources[name][0] for name in wanted}:
        own = [name for name in wanted if sources[name][0] == component]
        found = read_tensors(
            homes[component] / component, device, torch.float32, {s for name in own for s in sources[name][1]}
        )
        for name in own:
            parts = [found.pop(source) for source in sources[name][1]]
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
            tensors[name] = tensor.T.contiguous() if name in TRANSPOSED else tensor
    if names is None or "logit_scale" in names:  # no part of the published towers; nothing that draws needs it
        tensors["logit_scale"] = torch.tensor(1 / 0.07, device=device).log()
    return tensors
