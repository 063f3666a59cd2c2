"""Read the safetensors files of a component: their names, shapes and tensors. No other format is read."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from unclip.checkpoints.index import FIX, INDEX, PICKLE_SUFFIXES, find_weight_files
from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import foreign_content

REMAP_BYTES = 256 << 20
"""Bytes of a file that are converted before it is mapped again, which releases the pages already converted."""

FLOATS = {"F64", "F32", "F16", "BF16"}
_ATTENTION = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(folder: Path) -> Shapes:
    """The shape of every tensor of a component, read from the file headers. Raises CheckpointError."""
    shapes: Shapes = {}
    for path in require_weight_files(folder):
        with open_safetensors(path) as file:
            check_precision(path, file)
            names = file.keys()
            found = {current_name(name): tuple(file.get_slice(name).get_shape()) for name in names}
        if duplicates := sorted(found.keys() & shapes.keys()):
            raise CheckpointError(
                f"{path} repeats {show(duplicates[0])} of another file in its folder: keep one of the two"
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
    Raises CheckpointError for a damaged file.
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
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def check_shapes(folder: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError for missing, unexpected or misshapen tensors, with the first three names."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    bad = sorted(key for key in expected.keys() & found.keys() if expected[key] != found[key])
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has misshapen", bad)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{folder} {what} tensors: {', '.join(map(_cut, keys[:3]))}{more}; {FIX}")


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
