"""The token embedding of the decoder's text encoder, stored once where it is CLIP's.

A text encoder that is trained with the decoder starts as CLIP's, and its token embedding, most of its weights, stays as
it is. The folder `decoder_text` of a model then leaves this tensor out. Its config.json says so, with a hash of the
values: with another CLIP, the encoder would compute nonsense.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, StrictStr
from torch import Tensor

from unclip.checkpoints.index import FIX, find_weight_files
from unclip.checkpoints.settings import Settings, validate
from unclip.checkpoints.weight_files import open_safetensors, require_weight_files
from unclip.errors import CheckpointError
from unclip.system.files import read_json

COMPONENT, NAME = "decoder_text", "transformer.token_embedding.weight"
CLIP, NAME_IN_CLIP = "clip", "text.token_embedding.weight"
ENTRIES = KEY, HASH = "_token_embedding", "_token_embedding_sha256"
"""Entries of config.json. Their names begin with an underscore, because they are no settings of the network."""


class SharedSettings(Settings):
    """The entries of config.json. source: the component that has the tensor. sha256: of its values in float16."""

    source: Literal["clip"] = Field(alias=KEY)
    sha256: StrictStr = Field(alias=HASH)


@dataclass(frozen=True)
class SharedEmbedding:
    """A token embedding that is CLIP's. config: of the text encoder. clip: folder of CLIP. sha256: of the values."""

    config: Path
    clip: Path
    sha256: str
    name: str = NAME

    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor, read from the file header. Raises CheckpointError if CLIP lacks it."""
        return tuple(self._find().shape)

    def read(self) -> Tensor:
        """The tensor as stored, a view of CLIP's file. Raises CheckpointError if its values have another hash."""
        tensor = self._find()
        if hash_values(tensor) != self.sha256:
            raise CheckpointError(
                f"{self.config.parent} was made with another CLIP than {self.clip}, whose token embedding it uses: "
                f"train the decoder again, or {FIX}"
            )
        return tensor

    def _find(self) -> Tensor:
        require_weight_files(self.clip)
        if (tensor := find_embedding(self.clip)) is None:
            raise CheckpointError(f"{self.clip} lacks {NAME_IN_CLIP}, which {self.config} refers to; {FIX}")
        return tensor


def find_shared(folder: Path) -> SharedEmbedding | None:
    """The token embedding that a component shares with CLIP; None if all its tensors are in its own files.

    Raises CheckpointError for a config that is damaged.
    """
    path = folder / "config.json"
    if folder.name != COMPONENT or not path.is_file() or KEY not in (config := read_json(path)):
        return None
    return SharedEmbedding(path, folder.parent / CLIP, validate(SharedSettings, config, str(path)).sha256)


def find_embedding(clip: Path) -> Tensor | None:
    """CLIP's token embedding as stored, a view of the file that is read at first use; None if its folder has none."""
    for path in find_weight_files(clip):
        with open_safetensors(path) as file:
            if NAME_IN_CLIP in file.keys():  # noqa: SIM118 (not a dict)
                return file.get_tensor(NAME_IN_CLIP)
    return None


def leave_out_shared(
    weights: Mapping[str, Tensor], folder: Path, dtype: torch.dtype
) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    """The weights to store in a component's folder as `dtype`, and the further entries of its config.json.

    Nothing is left out unless the folder is the text encoder's of a model whose CLIP holds exactly the same values.
    """
    if folder.name != COMPONENT or NAME not in weights or (theirs := find_embedding(folder.parent / CLIP)) is None:
        return weights, {}
    if not torch.equal(weights[NAME].detach().cpu().to(dtype).float(), theirs.float()):
        return weights, {}
    rest = {name: tensor for name, tensor in weights.items() if name != NAME}
    return rest, {KEY: CLIP, HASH: hash_values(theirs)}


def fits_clip(folder: Path) -> bool:
    """Whether a component shares no token embedding with the CLIP beside it, or still the one that it was made with."""
    try:
        if (shared := find_shared(folder)) is not None:
            shared.read()
    except CheckpointError:
        return False
    return True


def hash_values(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values in float16, in hexadecimal: the same for other files and precisions."""
    return hashlib.sha256(tensor.detach().cpu().to(torch.float16).contiguous().numpy().data).hexdigest()
