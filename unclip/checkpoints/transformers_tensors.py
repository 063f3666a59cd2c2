"""Read the weights of a network whose layers are those of a network of transformers, with other names."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoints.tensors import Shapes, check_shapes, read_tensors, tensor_shapes

TensorNames = dict[str, list[str]]
"""For each parameter of a network: the tensors of transformers that are concatenated to it."""
Sources = dict[str, tuple[Path, list[str]]]
"""The same with the folder of the tensors."""

_TRANSPOSED = ("text.text_projection", "visual.proj")  # open_clip multiplies from the other side
_UNUSED = (".position_ids", ".pooler.dense.weight", ".pooler.dense.bias")


def check_sources(folder: Path, names: TensorNames, shapes: Shapes) -> Sources:
    """The sources with their folder, named as in its files. shapes: of the network's parameters.

    Raises CheckpointError for missing, unexpected or misshapen tensors.
    """
    found = stored_shapes(folder)
    if not any(key.startswith("text_model.") for key in found):  # a CLIPTextModel of transformers 5 has no prefix
        names = {name: [part.removeprefix("text_model.") for part in parts] for name, parts in names.items()}
    expected: Shapes = {}
    for name, parts in names.items():
        expected |= dict.fromkeys(parts, source_shape(name, shapes[name], len(parts)))
    check_shapes(folder, expected, found)
    return {name: (folder, parts) for name, parts in names.items()}


def stored_shapes(folder: Path) -> Shapes:
    """The shapes of a component's tensors, without those that are of no use.

    Old versions of transformers saved position ids; poolers are saved though no pipeline uses them.
    """
    return {key: shape for key, shape in tensor_shapes(folder).items() if not key.endswith(_UNUSED)}


def source_shape(name: str, shape: tuple[int, ...], parts: int) -> tuple[int, ...]:
    """The shape of each of the `parts` tensors of a parameter with `shape`."""
    if name in _TRANSPOSED:
        return shape[::-1]
    return (shape[0] // parts, *shape[1:]) if parts > 1 else shape


def read_sources(
    sources: Sources, device: torch.device, dtype: torch.dtype, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The parameters of a network by name, in `dtype` on `device`.

    names: the parameters to read; None reads all of `sources`.
    """
    wanted = [name for name in sources if names is None or name in names]
    tensors: dict[str, Tensor] = {}
    for folder in {sources[name][0] for name in wanted}:
        own = [name for name in wanted if sources[name][0] == folder]
        found = read_tensors(folder, device, dtype, {part for name in own for part in sources[name][1]})
        for name in own:
            parts = [found.pop(part) for part in sources[name][1]]
            tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
            tensors[name] = tensor.T.contiguous() if name in _TRANSPOSED else tensor
    return tensors
