"""The image encoder of an open_clip model, by model and weights: "ViT-L-14/openai"."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from unclip.checkpoints.hub import download_file
from unclip.checkpoints.tensors import Shapes
from unclip.checkpoints.weight_files import check_precision, open_safetensors
from unclip.errors import CheckpointError

WEIGHTS = "open_clip_model.safetensors"
_HEAD_WIDTH = 64  # channels per attention head if an open_clip config does not set it


@dataclass(frozen=True)
class OpenClipImageEncoder:
    """An image encoder whose weights are in the hub's cache.

    name        model/weights, as open_clip names them
    fields      the fields of ClipConfig that describe it
    embed_dim   must equal the text encoder's, as must quick_gelu
    file        its weights
    """

    name: str
    fields: dict[str, Any]
    embed_dim: int
    quick_gelu: bool
    file: Path

    def shapes(self) -> Shapes:
        """The shapes of its tensors, by their names in `Clip`."""
        with open_safetensors(self.file) as file:
            check_precision(self.file, file)
            names = [name for name in file.keys() if name.startswith("visual.")]  # noqa: SIM118
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}

    def read(self, device: torch.device, names: Collection[str]) -> dict[str, Tensor]:
        """Its tensors that `names` lists, in float32."""
        with open_safetensors(self.file) as file:
            wanted = [name for name in file.keys() if name.startswith("visual.") and name in names]  # noqa: SIM118
            return {name: file.get_tensor(name).to(device, torch.float32) for name in wanted}


def is_open_clip_name(name: str) -> bool:
    """Whether a name is an open_clip model, with or without weights."""
    model = name.partition("/")[0]
    return ":" not in model and open_clip.get_model_config(model) is not None  # excludes "hf-hub:..."


def find_open_clip_image_encoder(name: str) -> OpenClipImageEncoder:
    """The image encoder of open_clip model and weights `name`; downloads the weights if they are not in the cache.

    Raises CheckpointError for weights that are unknown, not on the hub as safetensors, or cannot be downloaded.
    """
    model, _, tag = name.partition("/")
    config = open_clip.get_model_config(model)
    if config is None:
        raise CheckpointError(f"open_clip has no model {model!r}")
    weights = (open_clip.get_pretrained_cfg(model, tag) if tag else None) or {}
    repository = weights.get("hf_hub", "").rstrip("/")
    if not repository:
        known = ", ".join(f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise CheckpointError(f"no weights {name!r} of open_clip are on the hub; its weights of {model}: {known}")
    vision = config["vision_cfg"]
    if not isinstance(vision.get("layers"), int):
        raise CheckpointError(f"the image encoder of {name} is not a vision transformer; give another model")
    fields = {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "vision_width": vision["width"],
        "vision_layers": vision["layers"],
        "vision_heads": vision["width"] // vision.get("head_width", _HEAD_WIDTH),
        "vision_mlp_ratio": vision.get("mlp_ratio", 4.0),
        "pixel_mean": weights["mean"],
        "pixel_std": weights["std"],
        "center_crop": True,
    }
    quick_gelu = bool(weights.get("quick_gelu", config.get("quick_gelu", False)))
    return OpenClipImageEncoder(name, fields, config["embed_dim"], quick_gelu, download_file(repository, WEIGHTS))
