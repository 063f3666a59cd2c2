"""The weight files of a component: which they are, what they hold, and reading them. Nothing but safetensors."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from unclip.checkpoints.index import INDEX, PICKLES, weight_files
from unclip.errors import CheckpointError

WINDOW = 256 << 20  # bytes of a file that are converted before it is mapped anew
FLOATS = {"F64", "F32", "F16", "BF16"}

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(folder: Path) -> Shapes:
    """The shape of every tensor of a component, read from the headers of its files. Raises CheckpointError."""
    shapes: Shapes = {}
    for path in files_of(folder):
        with opened(path) as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if twice := sorted(found.keys() & shapes.keys()):
            raise CheckpointError(f"{path} has {twice[0]} again, which another file there has: keep one of the two")
        shapes |= found
    return shapes


def read_tensors(
    folder: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    names: Collection[str] | None = None,
    channels_last: bool = False,
) -> dict[str, torch.Tensor]:
    """A component's tensors, or those of `names`, in `dtype`; kernels of convolutions in channels_last if asked.

    The files are mapped into memory. What needs no conversion stays a view of its file and is read when it is used;
    the rest is converted one by one, and the pages it came from are let go, so that nothing is in memory twice.
    Raises CheckpointError for a damaged file.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in files_of(folder):
        with opened(path) as file:
            wanted = [key for key in file.keys() if names is None or key in names]  # noqa: SIM118
            # Not from this mapping, which its views keep: pages of converted tensors would stay with them.
            convert = [name for name in wanted if _differs(file.get_slice(name), dtype, channels_last)]
            as_it_is = set(wanted) - set(convert)
            tensors |= {name: file.get_tensor(name) for name in wanted if name in as_it_is}
        while convert:
            done = 0
            with opened(path, device) as file:
                while convert and done < WINDOW:
                    name = convert.pop()
                    tensor = file.get_tensor(name)
                    done += tensor.nbytes
                    tensors[name] = _converted(tensor, dtype, channels_last)
                    del tensor
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def check_fit(folder: Path, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError, naming them, for tensors that are missing, unexpected or misshapen."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    bad = sorted(key for key in wanted.keys() & found.keys() if wanted[key] != found[key])
    for what, keys in (("lacks", missing), ("has unexpected", extra), ("has misshapen", bad)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(f"{folder} {what} tensors: {', '.join(keys[:3])}{more}; get the checkpoint anew")


def files_of(folder: Path) -> list[Path]:
    """The safetensors files of a component. Raises CheckpointError, for pickles with the command that converts them."""
    paths = weight_files(folder)
    if paths:
        return paths
    pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickled:
        whole = folder.parent if (folder.parent / INDEX).exists() else folder
        raise CheckpointError(
            f"{folder} has its weights in {pickled[0]}, and a pickle can run any code as it is read: "
            f"convert it with `unclip models convert {whole}`"
        )
    raise CheckpointError(f"no .safetensors file in {folder}; get the checkpoint anew")


@contextmanager
def opened(path: Path, device: torch.device | str = "cpu") -> Iterator[Any]:
    """A safetensors file, mapped into memory. Raises CheckpointError if it is none, or is cut short."""
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); get the checkpoint anew") from None


def _differs(entry: Any, dtype: torch.dtype, channels_last: bool) -> bool:
    """Whether a tensor of a file is to be another in memory."""
    kind = entry.get_dtype()
    kernel = channels_last and len(entry.get_shape()) == 4
    return kernel or (kind in FLOATS and kind != _NAMES.get(dtype))


def _converted(tensor: torch.Tensor, dtype: torch.dtype, channels_last: bool) -> torch.Tensor:
    layout = torch.channels_last if channels_last and tensor.ndim == 4 else torch.contiguous_format
    new = tensor.to(dtype if tensor.is_floating_point() else None, memory_format=layout)
    mapped = tensor.device.type == "cpu" and new.data_ptr() == tensor.data_ptr()
    return new.clone(memory_format=layout) if mapped else new


_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
