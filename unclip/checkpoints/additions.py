"""Files that are loaded together with a checkpoint: another image encoder, another prior, LoRA files."""

import math
from dataclasses import dataclass
from pathlib import Path

from unclip.errors import CheckpointError
from unclip.requests.fields import PRIORS
from unclip.requests.values import show


@dataclass(frozen=True)
class Additions:
    """Files that are loaded together with a checkpoint.

    image_encoder  for a checkpoint without a CLIP image encoder: another checkpoint that has one, or a model of
                   open_clip with its weights, such as "ViT-L-14/openai"
    prior          a kind of prior, of requests.fields.PRIORS, which requests that name none then take; or for a
                   checkpoint whose prior is in a repository of its own, another prior than that: a folder or a hub id
    loras          LoRA files, each with a scale: "FILE" or "FILE:SCALE"
    """

    image_encoder: str | Path | None = None
    prior: str | Path | None = None
    loras: tuple[str | Path, ...] = ()

    @property
    def prior_kind(self) -> str | None:
        """The kind of prior, if that is given. A folder of such a name is given with its path, as ./diffusion."""
        return self.prior if isinstance(self.prior, str) and self.prior in PRIORS else None

    @property
    def prior_model(self) -> str | Path | None:
        """The folder or hub id of another prior, if that is given."""
        return None if self.prior_kind is not None else self.prior


def parse_lora(text: str | Path) -> tuple[Path, float]:
    """The file and the scale of "FILE" or "FILE:SCALE". Raises CheckpointError for a scale that is no finite number."""
    path, colon, scale = str(text).rpartition(":")
    if not colon or Path(str(text)).exists():
        return Path(text), 1.0
    try:
        value = float(scale)
    except ValueError:
        return Path(text), 1.0  # a colon in the name of a file that is missing, as the reader then says
    if not math.isfinite(value):
        raise CheckpointError(f"the scale of LoRA {path} is {scale}: give a number, such as {path}:0.8")
    return Path(path), value


def find_lora(text: str | Path) -> tuple[Path, float]:
    """The file and the scale of "FILE" or "FILE:SCALE". Raises CheckpointError for a missing file or a wrong scale."""
    path, scale = parse_lora(text)
    if not path.is_file():
        raise CheckpointError(f"no LoRA file {show(str(path))}: give a .safetensors file, or FILE:SCALE")
    return path, scale
