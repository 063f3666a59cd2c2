"""The image tower of a model of open_clip, by its name there and whose weights: "ViT-L-14/openai"."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from unclip.checkpoints.tensors import Shapes, opened
from unclip.errors import CheckpointError

WEIGHTS = "open_clip_model.safetensors"
_HEAD = 64  # channels, where a config of open_clip does not say


@dataclass(frozen=True)
class OpenClipTower:
    """fields: of a ClipConfig; embed_dim and quick_gelu, for the text tower to be compared with; file: the weights."""

    name: str
    fields: dict[str, Any]
    embed_dim: int
    quick_gelu: bool
    file: Path

    def shapes(self) -> Shapes:
        """The shapes of its tensors, under the names that Clip has for them."""
        with opened(self.file) as file:
            names = [name for name in file.keys() if name.startswith("visual.")]  # noqa: SIM118
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}

    def read(self, device: torch.device, names: Collection[str]) -> dict[str, Tensor]:
        """Its tensors of these names, in float32."""
        with opened(self.file) as file:
            wanted = [name for name in file.keys() if name.startswith("visual.") and name in names]  # noqa: SIM118
            return {name: file.get_tensor(name).to(device, torch.float32) for name in wanted}


def is_open_clip_name(name: str) -> bool:
    """Whether a name is that of a model of open_clip, with or without its weights."""
    model = name.partition("/")[0]
    return ":" not in model and open_clip.get_model_config(model) is not None  # "hf-hub:" and the like are no names


def open_clip_tower(name: str) -> OpenClipTower:
    """Find a tower by its name; its weights are fetched from the hub unless they are in its cache.

    Raises CheckpointError for weights that are unknown, are no safetensors, or cannot be had.
    """
    model, _, tag = name.partition("/")
    config = open_clip.get_model_config(model)
    weights = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    repository = weights.get("hf_hub", "").rstrip("/")
    if not repository:
        known = ", ".join(f"{model}/{tag}" for tag in open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise CheckpointError(f"no weights {name!r} of open_clip are on the hub; its weights of {model}: {known}")
    vision = config["vision_cfg"]
    if not isinstance(vision.get("layers"), int):
        raise CheckpointError(f"{name} has no vision transformer as image tower; give another")
    fields = {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "vision_width": vision["width"],
        "vision_layers": vision["layers"],
        "vision_heads": vision["width"] // vision.get("head_width", _HEAD),
        "vision_mlp_ratio": vision.get("mlp_ratio", 4.0),
        "pixel_mean": weights["mean"],
        "pixel_std": weights["std"],
        "center_crop": True,
    }
    quick = bool(weights.get("quick_gelu", config.get("quick_gelu", False)))
    return OpenClipTower(name, fields, config["embed_dim"], quick, fetched(repository, name))


def fetched(repository: str, name: str) -> Path:
    """The weight file of a repository, from the hub's cache if it is there."""
    from huggingface_hub import hf_hub_download

    try:
        try:
            return Path(hf_hub_download(repository, WEIGHTS, local_files_only=True))
        except Exception:  # not there yet
            return Path(hf_hub_download(repository, WEIGHTS))
    except Exception as error:  # of the hub's library, of the HTTP client beneath it, of the disk
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"cannot get {WEIGHTS} of {name} from the hub ({reason})") from None
