"""Embedding files, and the principal components of a checkpoint, as safetensors.

An embedding file has "image_embed" (`d`), and "probe", the embedding of a fixed text: two CLIPs that agree on it are
the same, on any device and in any folder. Its metadata names the model and the source.
"""

import json
from pathlib import Path

import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from unclip.embeddings.principal_components import Components
from unclip.errors import CheckpointError, DataError, one_line
from unclip.system.files import write_atomic
from unclip.system.resources import COMPONENTS

PROBE = "a photograph of a red apple beside a blue car"
_SAME_CLIP = 0.998  # cosine similarity of two probes; of one CLIP in float32 and bfloat16, it is 0.9999 or less


def write_embedding(path: str | Path, embed: Tensor, probe: Tensor, model: str, source: str) -> Path:
    """Write an embedding `d`, with the probe `d` of the model's CLIP. source: what it was made from."""
    tensors = {name: tensor.float().cpu().contiguous() for name, tensor in (("image_embed", embed), ("probe", probe))}
    return write_atomic(path, save(tensors, metadata={"clip": model, "source": source}))


def read_embedding(path: str | Path | bytes, probe: Tensor, model: str) -> Tensor:
    """The image embedding `d` in a file or its contents, on the CPU.

    Raises DataError if there is none, or if another CLIP made it.
    """
    tensors, description = _read(path)
    path = "the embedding" if isinstance(path, bytes) else repr(str(path))
    found, theirs = tensors.get("image_embed"), tensors.get("probe")
    if found is None or theirs is None or not _are_embeddings(found, theirs):
        raise DataError(f"{path} holds no embedding; give a file that `unclip embed` wrote")
    ours = probe.float().cpu()
    if theirs.shape != ours.shape or F.cosine_similarity(theirs.float(), ours, dim=0) < _SAME_CLIP:
        maker = one_line(description.get("clip", "another model"))
        raise DataError(
            f"{path} was made by the CLIP of {maker}, and {model} has another one: make it again with --model {model}"
        )
    return found.float()


def _are_embeddings(*tensors: Tensor) -> bool:
    """Whether tensors are finite real vectors of one length."""
    shape = tensors[0].shape
    return all(
        t.ndim == 1 and t.shape == shape and t.is_floating_point() and t.float().isfinite().all() for t in tensors
    )


def write_components(folder: Path, found: Components) -> Path:
    """Store principal components with a checkpoint."""
    return write_atomic(folder / COMPONENTS, save({"mean": found.mean.cpu(), "axes": found.axes.cpu()}))


def read_components(folder: Path, dim: int) -> Components | None:
    """The principal components of a checkpoint, or None. Raises CheckpointError for a damaged file or another CLIP."""
    path = folder / COMPONENTS
    if not path.is_file():
        return None
    try:
        tensors, _ = _read(path)
    except DataError as error:
        raise CheckpointError(str(error)) from None
    mean, axes = tensors.get("mean"), tensors.get("axes")
    if mean is None or axes is None or mean.shape != (dim,) or axes.shape[1:] != (dim,):
        raise CheckpointError(f"{path} does not fit this model: make it again with `unclip models components {folder}`")
    return Components(mean, axes)


def _read(path: str | Path | bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    if isinstance(path, bytes):
        return _read_bytes(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except Exception as error:  # beside SafetensorError, those of types that torch does not have
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {str(path)!r} as safetensors ({one_line(reason)})") from None


def _read_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the contents of a safetensors file: 8 bytes with the length of the header, and that."""
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # as in `_read`
        raise DataError(f"cannot read the embedding as safetensors ({one_line(str(error))})") from None
    return tensors, header.get("__metadata__", {})
