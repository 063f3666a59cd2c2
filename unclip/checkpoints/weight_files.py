"""Open the safetensors files of a component. No other format is read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from unclip.checkpoints.index import FIX, INDEX, PICKLE_SUFFIXES, find_weight_files
from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import foreign_content

FLOATS = {"F64", "F32", "F16", "BF16"}
_ATTENTION = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def require_weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component.

    Raises CheckpointError if there are none; for pickles, with the command that converts them.
    """
    paths = find_weight_files(folder)
    if paths:
        return paths
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickled:
        checkpoint = folder.parent if (folder.parent / INDEX).exists() else folder
        raise CheckpointError(
            f"{folder} has its weights in {pickled[0]}, and reading a pickle can run any code: "
            f"convert it with `unclip models convert {checkpoint}`"
        )
    raise CheckpointError(f"no .safetensors file in {folder}; {FIX}")


@contextmanager
def open_safetensors(path: Path, device: torch.device | str = "cpu") -> Iterator[Any]:
    """A memory-mapped safetensors file. Raises CheckpointError if it is missing, truncated or something else."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except (SafetensorError, OSError) as error:
        reason = foreign_content(path) or f"missing or damaged ({' '.join(str(error).split())[:100]}); {FIX}"
        raise CheckpointError(f"{path} is {reason}") from None


def check_precision(path: Path, file: Any) -> None:
    """Raise CheckpointError for a tensor that is not of floating point: quantized weights need their own code to run.

    file: an open safetensors file.
    """
    for name in file.keys():  # noqa: SIM118 (not a dict)
        kind = file.get_slice(name).get_dtype()
        # Old versions of transformers saved positions, which are not weights.
        if kind not in FLOATS and not name.endswith(".position_ids"):
            raise CheckpointError(
                f"{path} holds {show(name)} as {kind}, and only {', '.join(sorted(FLOATS))} can be read; "
                "get the checkpoint in float16, not quantized"
            )


def current_name(name: str) -> str:
    """The name that diffusers gives a tensor today. Before 0.15 it named those of an autoencoder's attention otherwise.

    Stable Diffusion's published autoencoders have the old names.
    """
    if (match := _ATTENTION.fullmatch(name)) is None:
        return name
    return f"{match[1]}.{_ATTENTION_NAMES[match[2]]}.{match[3]}"
