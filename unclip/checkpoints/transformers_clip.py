"""Load the CLIP encoders of a published checkpoint, which transformers saved, into open_clip's model."""

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoints.networks import ReadTensors, make_empty, one_line, parameter_shapes
from unclip.checkpoints.open_clip_image_encoder import OpenClipImageEncoder
from unclip.checkpoints.settings import FIX, ClipTextSettings, ClipVisionSettings, validate
from unclip.checkpoints.tensors import Shapes, check_shapes, read_tensors, tensor_shapes
from unclip.errors import CheckpointError
from unclip.models.clip import Clip, ClipConfig
from unclip.models.tokenizer import is_clip_vocabulary
from unclip.requests.values import show
from unclip.system.files import read_json

Sources = Mapping[str, tuple[str, list[str]]]
"""For each parameter of open_clip: the component, and the tensors of transformers that are concatenated to it."""

_BLOCK_NAMES = {  # of a transformer block: open_clip -> transformers
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TRANSPOSED = ("text.text_projection", "visual.proj")  # open_clip multiplies from the other side


def prepare_clip(
    folder: Path, device: torch.device, images: Path | OpenClipImageEncoder | None
) -> tuple[Clip, ReadTensors]:
    """An empty CLIP, and a function that reads its weights in float32 onto `device`.

    folder: checkpoint of the text encoder. images: checkpoint of the image encoder, which may be another, or an image
    encoder of open_clip; None for a CLIP without one.
    Raises CheckpointError for configs, a tokenizer or tensors that do not belong to a CLIP.
    """
    config = read_clip_config(folder, images)
    folders = {"text_encoder": folder, **({"image_encoder": images} if isinstance(images, Path) else {})}
    # Old versions of transformers saved position ids, which are not weights.
    found = {
        component: {key: s for key, s in tensor_shapes(home / component).items() if not key.endswith(".position_ids")}
        for component, home in folders.items()
    }
    of_images = images.shapes() if isinstance(images, OpenClipImageEncoder) else {}
    try:
        clip = make_empty(
            partial(Clip, config), {**found["text_encoder"], **found.get("image_encoder", {}), **of_images}
        )
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'text_encoder'}: {error}; {FIX}") from None
    except Exception as error:  # open_clip raises many kinds
        raise CheckpointError(f"{folder}: the configs of CLIP do not fit together: {one_line(error)}") from None
    sources = tensor_sources(clip)
    shapes = parameter_shapes(clip)
    for component, home in folders.items():
        expected: Shapes = {}
        for name, (source_component, parts) in sources.items():
            if source_component == component:
                expected |= dict.fromkeys(parts, transformers_shape(name, shapes[name], len(parts)))
        check_shapes(home / component, expected, found[component])
    check_tokenizer(folder / "tokenizer")
    if not isinstance(images, OpenClipImageEncoder):
        return clip, partial(read_encoders, folders, device, sources)
    image_names = {name for name, (component, _) in sources.items() if component == "image_encoder"}
    check_shapes(images.file, {name: shapes[name] for name in image_names}, of_images)
    text_sources = {name: source for name, source in sources.items() if name not in image_names}

    def read(names: Collection[str] | None = None) -> dict[str, Tensor]:
        tensors = images.read(device, image_names if names is None else image_names & set(names))
        return {**read_encoders(folders, device, text_sources, names), **tensors}

    return clip, read


def read_clip_config(folder: Path, images: Path | OpenClipImageEncoder | None) -> ClipConfig:
    """The config of both encoders, from transformers' configs. Raises CheckpointError for unsupported settings."""
    path = folder / "text_encoder" / "config.json"
    text = validate(ClipTextSettings, read_json(path), str(path))
    fields = {
        "embed_dim": text.projection_dim,
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "text_width": text.hidden_size,
        "text_layers": text.num_hidden_layers,
        "text_heads": text.num_attention_heads,
        "text_mlp_ratio": text.intermediate_size / text.hidden_size,
        "vision_layers": 0,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "normalize": False,
        "transformers_tokens": True,
    }
    if isinstance(images, OpenClipImageEncoder):
        for key, value in (("embed_dim", images.embed_dim), ("quick_gelu", images.quick_gelu)):
            if value != fields[key]:
                raise CheckpointError(f"{images.name}: {key} is {value}, the text's is {fields[key]}; give another")
        fields |= images.fields
    elif images:
        path = images / "image_encoder" / "config.json"
        image = validate(ClipVisionSettings, read_json(path), str(path))
        for key in ("projection_dim", "hidden_act"):
            found, expected = getattr(image, key), getattr(text, key)
            if found != expected:
                raise CheckpointError(f"{images / 'image_encoder'}: {key} is {found}, the text's is {expected}")
        fields |= {
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "vision_width": image.hidden_size,
            "vision_layers": image.num_hidden_layers,
            "vision_heads": image.num_attention_heads,
            "vision_mlp_ratio": image.intermediate_size / image.hidden_size,
            **read_pixel_config(images / "feature_extractor" / "preprocessor_config.json", image.image_size),
        }
    return ClipConfig(**fields)


def read_pixel_config(path: Path, size: int) -> dict[str, Any]:
    """The fields of ClipConfig on how images are prepared. size: of the image encoder, in pixels.

    Raises CheckpointError for anything but a resize to `size` and a crop of the centre.
    """
    config = read_json(path)
    mean, std = config.get("image_mean"), config.get("image_std")
    for key, values in (("image_mean", mean), ("image_std", std)):
        lowest = 0.0 if key == "image_mean" else 1e-3  # a deviation of 0 divides by 0
        if not isinstance(values, list) or len(values) != 3 or not all(_is_number(v, lowest) for v in values):
            raise CheckpointError(f"{path}: {key} is {show(values)}, and should be three numbers up to 1; {FIX}")
    shortest = config.get("size", size)
    shortest = shortest.get("shortest_edge") if isinstance(shortest, dict) else shortest
    if shortest != size or config.get("do_center_crop") is False:
        raise CheckpointError(f"{path}: only a resize to {size} pixels and a crop of the centre are supported")
    return {"pixel_mean": tuple(mean or ()), "pixel_std": tuple(std or ()), "center_crop": True}


def _is_number(value: Any, lowest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= 1


def check_tokenizer(folder: Path) -> None:
    """Raise CheckpointError unless a tokenizer has CLIP's vocabulary and pads with "!", as published ones do."""
    config = read_json(folder / "tokenizer_config.json")
    special = folder / "special_tokens_map.json"
    pad = {**config, **(read_json(special) if special.is_file() else {})}.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if pad != "!":
        raise CheckpointError(f"{folder} pads with {show(pad)}; only checkpoints that pad with '!' are supported")
    if (folder / "vocab.json").is_file():
        vocabulary: Any = read_json(folder / "vocab.json")
    else:
        model = read_json(folder / "tokenizer.json").get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict) or not is_clip_vocabulary(vocabulary):
        raise CheckpointError(f"{folder} has another vocabulary than CLIP's; {FIX}")


def tensor_sources(clip: Clip) -> dict[str, tuple[str, list[str]]]:
    """The `Sources` of all parameters of a CLIP."""
    names = {
        "text.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text.positional_embedding": "text_model.embeddings.position_embedding.weight",
        "text.text_projection": "text_projection.weight",
        **{f"text.ln_final.{part}": f"text_model.final_layer_norm.{part}" for part in ("weight", "bias")},
    }
    sources = {name: ("text_encoder", [source]) for name, source in names.items()}
    sources |= block_sources("text", clip.config.text_layers, "text_encoder", "text_model")
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
        sources |= block_sources("visual", clip.config.vision_layers, "image_encoder", "vision_model")
    return sources


def block_sources(encoder: str, layers: int, component: str, model: str) -> dict[str, tuple[str, list[str]]]:
    """The `Sources` of an encoder's blocks. open_clip keeps query, key and value in one parameter."""
    sources = {}
    for i in range(layers):
        ours, theirs = f"{encoder}.transformer.resblocks.{i}", f"{model}.encoder.layers.{i}"
        for part in ("weight", "bias"):
            attention = [f"{theirs}.self_attn.{which}_proj.{part}" for which in "qkv"]
            sources[f"{ours}.attn.in_proj_{part}"] = (component, attention)
            for own, other in _BLOCK_NAMES.items():
                sources[f"{ours}.{own}.{part}"] = (component, [f"{theirs}.{other}.{part}"])
    return sources


def transformers_shape(name: str, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """The shape in transformers of each of the `parts` tensors of a parameter with `shape` in open_clip."""
    if name in _TRANSPOSED:
        return shape[::-1]
    return (shape[0] // parts, *shape[1:]) if parts > 1 else shape


def read_encoders(
    folders: Mapping[str, Path],
    device: torch.device,
    sources: Sources,
    names: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Parameters of open_clip's encoders by name, in float32, from transformers' tensors.

    folders: the checkpoint of each component. names: the parameters to read; None reads all of `sources`.
    """
    wanted = [name for name in sources if names is None or name in names]
    tensors: dict[str, Tensor] = {}
    for component in {sources[name][0] for name in wanted}:
        own = [name for name in wanted if sources[name][0] == component]
        found = read_tensors(
            folders[component] / component, device, torch.float32, {s for name in own for s in sources[name][1]}
        )
        for name in own:
            parts = [found.pop(source) for source in sources[name][1]]
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
            tensors[name] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
    if names is None or "logit_scale" in names:  # not published, and only used in training
        tensors["logit_scale"] = torch.tensor(1 / 0.07, device=device).log()
    return tensors
