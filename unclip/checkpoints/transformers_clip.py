"""Load the CLIP encoders of a published checkpoint, which transformers saved, into open_clip's model."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoints.networks import ReadTensors, make_empty, one_line, parameter_shapes
from unclip.checkpoints.open_clip_image_encoder import OpenClipImageEncoder
from unclip.checkpoints.settings import FIX, ClipEncoderSettings, ClipTextSettings, ClipVisionSettings, validate
from unclip.checkpoints.tensors import check_shapes
from unclip.checkpoints.transformers_tensors import Sources, TensorNames, check_sources, read_sources, stored_shapes
from unclip.errors import CheckpointError
from unclip.models.clip import Clip, ClipConfig
from unclip.models.text_encoder import TextEncoderConfig, TransformerTextEncoder
from unclip.models.tokenizer import END, PAD, is_clip_vocabulary
from unclip.requests.values import show
from unclip.system.files import read_json

PREPROCESSING = ("feature_extractor", "image_processor")  # names of the folder, by family
PIXELS = "preprocessor_config.json"
BICUBIC = 3  # in Pillow and transformers

_BLOCK_NAMES = {  # of a transformer block: open_clip -> transformers
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


@dataclass(frozen=True)
class ClipSource:
    """The folders of CLIP's encoders, which may be of different checkpoints.

    text, tokenizer: None for a CLIP without a text encoder. images, pixels: of the image encoder and its preprocessing.
    Instead of both, `images` may be an image encoder of open_clip; None for a CLIP without one.
    """

    text: Path | None = None
    tokenizer: Path | None = None
    images: Path | OpenClipImageEncoder | None = None
    pixels: Path | None = None


def find_clip(text: Path | None, images: Path | OpenClipImageEncoder | None, prefix: str = "") -> ClipSource:
    """The folders of the encoders in checkpoint folders `text` and `images`.

    prefix: of the text encoder's and its tokenizer's names; Stable unCLIP calls those of its prior "prior_...".
    """
    folders = {} if text is None else {"text": text / f"{prefix}text_encoder", "tokenizer": text / f"{prefix}tokenizer"}
    if not isinstance(images, Path):
        return ClipSource(**folders, images=images)
    names = [name for name in PREPROCESSING if (images / name / PIXELS).is_file()] or PREPROCESSING
    return ClipSource(**folders, images=images / "image_encoder", pixels=images / names[0])


def prepare_clip(
    source: ClipSource, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Clip, ReadTensors]:
    """An empty CLIP, and a function that reads its weights onto `device` in `dtype`.

    Raises CheckpointError for configs, a tokenizer or tensors that do not belong to a CLIP.
    """
    config, images = read_clip_config(source), source.images
    where = source.images if source.text is None else source.text
    folders = [folder for folder in (source.text, images) if isinstance(folder, Path)]
    found = {name: shape for folder in folders for name, shape in stored_shapes(folder).items()}
    if isinstance(images, OpenClipImageEncoder):
        found |= images.shapes()
    try:
        clip = make_empty(partial(Clip, config), found)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}; {FIX}") from None
    except Exception as error:  # open_clip raises many kinds
        raise CheckpointError(f"{where}: the configs of CLIP do not fit together: {one_line(error)}") from None
    shapes = parameter_shapes(clip)
    sources: Sources = {}
    if source.text is not None:
        sources |= check_sources(source.text, text_sources("text", config.text_layers, projected=True), shapes)
    if isinstance(images, Path):
        sources |= check_sources(images, image_sources(config.vision_layers), shapes)
    image_names = set()
    if isinstance(images, OpenClipImageEncoder):
        image_names = {name for name in shapes if name.startswith("visual.")}
        check_shapes(images.file, {name: shapes[name] for name in image_names}, images.shapes())

    def read(names: Collection[str] | None = None) -> dict[str, Tensor]:
        tensors = read_sources(sources, device, dtype, names)
        if isinstance(images, OpenClipImageEncoder):
            wanted = image_names if names is None else image_names & set(names)
            tensors |= {name: tensor.to(dtype) for name, tensor in images.read(device, wanted).items()}
        if names is None or "logit_scale" in names:  # not published, and only used in training
            tensors["logit_scale"] = torch.tensor(1 / 0.07, device=device).log()
        return tensors

    return clip, read


def prepare_text_encoder(
    folder: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[TransformerTextEncoder, ReadTensors]:
    """An empty text encoder of transformers' CLIPTextModel, which has no projection, and the reader of its weights.

    Raises CheckpointError for a config or tensors that do not belong to one.
    """
    text = validate(ClipTextSettings, read_json(folder / "config.json"), str(folder / "config.json"))
    config = TextEncoderConfig(
        width=text.hidden_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        context_length=text.max_position_embeddings,
        vocab_size=text.vocab_size,
        mlp_ratio=mlp_ratio(text),
        quick_gelu=text.hidden_act == "quick_gelu",
    )
    try:
        encoder = make_empty(partial(TransformerTextEncoder, config), stored_shapes(folder))
    except CheckpointError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}; {FIX}") from None
    except Exception as error:
        raise CheckpointError(f"{folder / 'config.json'} does not fit a text encoder: {one_line(error)}") from None
    own = text_sources("transformer", config.layers, projected=False)
    sources = check_sources(folder, own, parameter_shapes(encoder))
    return encoder, partial(read_sources, sources, device, dtype)


def read_clip_config(source: ClipSource) -> ClipConfig:
    """The config of the encoders, from transformers' configs. Raises CheckpointError for unsupported settings."""
    fields: dict[str, Any] = {"normalize": False, "transformers_tokens": True, "text_layers": 0, "vision_layers": 0}
    if source.text is not None and source.tokenizer is not None:
        path = source.text / "config.json"
        text = validate(ClipTextSettings, read_json(path), str(path))
        fields |= {
            "embed_dim": text.projection_dim,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "text_width": text.hidden_size,
            "text_layers": text.num_hidden_layers,
            "text_heads": text.num_attention_heads,
            "text_mlp_ratio": mlp_ratio(text),
            "quick_gelu": text.hidden_act == "quick_gelu",
            "pad_token": read_pad_token(source.tokenizer),
        }
    if isinstance(source.images, OpenClipImageEncoder):
        images = source.images
        shared = {"embed_dim": images.embed_dim, "quick_gelu": images.quick_gelu}
        fields |= images.fields | check_shared(fields, shared, images.name)
    elif source.images is not None and source.pixels is not None:
        path = source.images / "config.json"
        image = validate(ClipVisionSettings, read_json(path), str(path))
        shared = {"embed_dim": image.projection_dim, "quick_gelu": image.hidden_act == "quick_gelu"}
        fields |= check_shared(fields, shared, str(source.images))
        fields |= {
            "image_size": image.image_size,
            "patch_size": image.patch_size,
            "vision_width": image.hidden_size,
            "vision_layers": image.num_hidden_layers,
            "vision_heads": image.num_attention_heads,
            "vision_mlp_ratio": mlp_ratio(image),
            **read_pixel_config(source.pixels / PIXELS, image.image_size),
        }
    return ClipConfig(**fields)


def check_shared(text: Mapping[str, Any], images: dict[str, Any], name: str) -> dict[str, Any]:
    """The fields of an image encoder that its text encoder shares. Raises CheckpointError if they differ."""
    for key, value in images.items():
        if (expected := text.get(key, value)) != value:
            raise CheckpointError(f"{name}: {key} is {value}, the text's is {expected}; give another")
    return images


def mlp_ratio(settings: ClipEncoderSettings) -> float:
    """The ratio from which open_clip computes the width of an encoder's MLP, rounding down."""
    width, hidden = settings.hidden_size, settings.intermediate_size
    return hidden / width if int(width * (hidden / width)) == hidden else (hidden + 0.5) / width


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
    if shortest != size or config.get("do_center_crop") is False or config.get("resample", BICUBIC) != BICUBIC:
        raise CheckpointError(f"{path}: only a bicubic resize to {size} pixels and a crop of the centre are supported")
    return {"pixel_mean": tuple(mean or ()), "pixel_std": tuple(std or ()), "center_crop": True}


def _is_number(value: Any, lowest: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= 1


def read_pad_token(folder: Path) -> str:
    """The pad token of a tokenizer: "!" or the end of text.

    Raises CheckpointError unless it has CLIP's vocabulary and pads with one of them, as published ones do.
    """
    config = read_json(folder / "tokenizer_config.json")
    special = folder / "special_tokens_map.json"
    pad = {**config, **(read_json(special) if special.is_file() else {})}.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    if pad not in (PAD, END):
        raise CheckpointError(
            f"{folder} pads with {show(pad)}; only checkpoints that pad with '!' or {END!r} are supported"
        )
    if (folder / "vocab.json").is_file():
        vocabulary: Any = read_json(folder / "vocab.json")
    else:
        model = read_json(folder / "tokenizer.json").get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict) or not is_clip_vocabulary(vocabulary):
        raise CheckpointError(f"{folder} has another vocabulary than CLIP's; {FIX}")
    return str(pad)


def text_sources(encoder: str, layers: int, projected: bool) -> TensorNames:
    """The sources of the parameters of a text encoder with open_clip's names, below the name `encoder`."""
    names = {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        **{f"ln_final.{part}": f"final_layer_norm.{part}" for part in ("weight", "bias")},
    }
    sources = {f"{encoder}.{name}": [f"text_model.{source}"] for name, source in names.items()}
    if projected:
        sources[f"{encoder}.text_projection"] = ["text_projection.weight"]
    return sources | block_sources(encoder, layers, "text_model")


def image_sources(layers: int) -> TensorNames:
    """The sources of the parameters of CLIP's image encoder."""
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.proj": "visual_projection.weight",
        **{f"visual.ln_pre.{part}": f"vision_model.pre_layrnorm.{part}" for part in ("weight", "bias")},
        **{f"visual.ln_post.{part}": f"vision_model.post_layernorm.{part}" for part in ("weight", "bias")},
    }
    return {name: [source] for name, source in names.items()} | block_sources("visual", layers, "vision_model")


def block_sources(encoder: str, layers: int, model: str) -> TensorNames:
    """The sources of an encoder's blocks. open_clip keeps query, key and value in one parameter."""
    sources = {}
    for i in range(layers):
        ours, theirs = f"{encoder}.transformer.resblocks.{i}", f"{model}.encoder.layers.{i}"
        for part in ("weight", "bias"):
            attention = [f"{theirs}.self_attn.{which}_proj.{part}" for which in "qkv"]
            sources[f"{ours}.attn.in_proj_{part}"] = attention
            for own, other in _BLOCK_NAMES.items():
                sources[f"{ours}.{own}.{part}"] = [f"{theirs}.{other}.{part}"]
    return sources
