"""Read the tensors of a component: their names, shapes and values.

They are in its safetensors files, but for a token embedding that is CLIP's (see `token_embedding`).
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from unclip.checkpoints.index import FIX
from unclip.checkpoints.token_embedding import find_shared
from unclip.checkpoints.weight_files import (
    FLOATS,
    check_precision,
    current_name,
    open_safetensors,
    require_weight_files,
)
from unclip.errors import CheckpointError
from unclip.requests.values import show

REMAP_BYTES = 256 << 20
"""Bytes of a file that are converted before it is mapped again, which releases the pages already converted."""

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(folder: Path) -> Shapes:
    """The shape of every tensor of a component, read from the file headers. Raises CheckpointError."""
    shapes: Shapes = {}
    if (shared := find_shared(folder)) is not None:
        shapes[shared.name] = shared.shape()
    for path in require_weight_files(folder):
        with open_safetensors(path) as file:
            check_precision(path, file)
            names = file.keys()
            found = {current_name(name): tuple(file.get_slice(name).get_shape()) for name in names}
        if duplicates := sorted(found.keys() & shapes.keys()):
            raise CheckpointError(
                f"{path} repeats {show(duplicates[0])} of another file of its component: keep one of the two"
            )
        shapes |= found
    return shapes


def read_tensors(
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    names: Collection[str] | None = None,
    channels_last: bool = False,
) -> dict[str, torch.Tensor]:
    """The tensors of a component by name, in `dtype` on `device`.

    names: the tensors to read; None reads all. channels_last: memory format of convolution kernels.

    The files are memory-mapped. A tensor that needs no conversion stays a view of its file and is read at first use.
    The others are converted one by one and their pages released, so that no tensor is in memory twice.
    Raises CheckpointError for a damaged file, and for a token embedding of another CLIP.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in require_weight_files(folder):
        with open_safetensors(path) as file:
            wanted = [key for key in file.keys() if names is None or current_name(key) in names]  # noqa: SIM118
            # Views keep this mapping alive, and with it all pages that were read through it. Tensors to convert are
            # therefore read through further mappings, below.
            convert = [name for name in wanted if _needs_conversion(file.get_slice(name), dtype, channels_last)]
            views = set(wanted) - set(convert)
            tensors |= {current_name(name): file.get_tensor(name) for name in wanted if name in views}
        while convert:
            done = 0
            with open_safetensors(path, device) as file:
                while convert and done < REMAP_BYTES:
                    name = convert.pop()
                    tensor = file.get_tensor(name)
                    done += tensor.nbytes
                    tensors[current_name(name)] = _convert(tensor, dtype, channels_last)
                    del tensor
    shared = find_shared(folder)
    if shared is not None and (names is None or shared.name in names):
        tensors[shared.name] = shared.read().to(dtype)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def read_first_rows(folder: Path) -> dict[str, torch.Tensor]:
    """The first row of each tensor of a component, as stored; a tensor without dimensions as it is."""
    rows: dict[str, torch.Tensor] = {}
    for path in require_weight_files(folder):
        with open_safetensors(path) as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                entry = file.get_slice(key)
                rows[current_name(key)] = entry[:1] if entry.get_shape() else file.get_tensor(key)
    if (shared := find_shared(folder)) is not None:
        rows[shared.name] = shared.read()[:1]
    return rows


def check_shapes(folder: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError for missing, unexpected or misshapen tensors, with the first three names."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    bad = sorted(key for key in expected.keys() & found.keys() if expected[key] != found[key])
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has misshapen", bad)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{folder} {what} tensors: {', '.join(map(_cut, keys[:3]))}{more}; {FIX}")


def _cut(name: str) -> str:
    """The name of a tensor for a message: at most 80 characters on one line."""
    return name if len(name) <= 80 and name.isprintable() else show(name)


def _needs_conversion(entry: Any, dtype: torch.dtype, channels_last: bool) -> bool:
    """Whether a tensor of a file has another precision or memory format than wanted."""
    kind = entry.get_dtype()
    kernel = channels_last and len(entry.get_shape()) == 4
    return kernel or (kind in FLOATS and kind != _NAMES.get(dtype))


def _convert(tensor: torch.Tensor, dtype: torch.dtype, channels_last: bool) -> torch.Tensor:
    """The tensor in `dtype` and its memory format, never a view of the mapped file."""
    layout = torch.channels_last if channels_last and tensor.ndim == 4 else torch.contiguous_format
    new = tensor.to(dtype if tensor.is_floating_point() else tensor.dtype, memory_format=layout)
    mapped = tensor.device.type == "cpu" and new.data_ptr() == tensor.data_ptr()
    return new.clone(memory_format=layout) if mapped else new
