"""Weights in pickles -> safetensors: once, by hand, with torch's loader that builds nothing but tensors."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unclip.checkpoints.index import PICKLES, weight_files
from unclip.errors import CheckpointError
from unclip.system.files import check_writable, read_json, write_json


def convert(folder: Path, out: Path | None = None) -> Iterator[str]:
    """Write safetensors beside the pickles of a checkpoint, or of one component; yields a line on each that it did.

    out: a new folder for the converted checkpoint, without its pickles; None: the folder itself. Components that have
    safetensors are left as they are. Raises CheckpointError for a pickle that holds anything but tensors.
    """
    parts = [part for part in (folder, *sorted(p for p in folder.glob("*") if p.is_dir())) if pickles_of(part)]
    parts = [part for part in parts if not weight_files(part)]
    if not parts:
        raise CheckpointError(f"{folder} holds no pickled weights that would have to be converted")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not empty; give a new folder")
    check_writable(folder if out is None else out)
    if out is not None:
        leave = shutil.ignore_patterns(*[f"*{suffix}" for suffix in PICKLES], *[f"*{s}.index.json" for s in PICKLES])
        shutil.copytree(folder, out, ignore=leave, dirs_exist_ok=True)
    for part in parts:
        target = part if out is None else out / part.relative_to(folder)
        weight_map: dict[str, str] = {}
        files = pickles_of(part)
        for file in files:
            tensors = read_pickle(file)
            path = target / f"{SAFE_NAMES.get(file.stem, file.stem)}.safetensors"
            weight_map |= dict.fromkeys(tensors, path.name)
            save(tensors, path)
            count = sum(tensor.numel() for tensor in tensors.values())
            yield f"{file} -> {path}: {len(tensors)} tensors, {count / 1e6:.1f} M values"
        if len(files) > 1:
            write_json(target / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


SAFE_NAMES = {"pytorch_model": "model"}  # transformers calls them differently


def pickles_of(folder: Path) -> list[Path]:
    """The pickled weights of a component: those of its index, or the one file there is, variants left aside."""
    indexes = sorted(folder.glob("*.bin.index.json"))
    if indexes:
        files = read_json(indexes[0]).get("weight_map")
        if not isinstance(files, dict):
            raise CheckpointError(f"{indexes[0]} has no weight_map; get the checkpoint anew")
        return sorted({folder / Path(str(file)).name for file in files.values()})  # names only: not out of the folder
    files = sorted(p for p in folder.glob("*") if p.suffix in PICKLES and p.name.count(".") == 1 and p.is_file())
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{folder} holds several pickles ({names}): leave the one whose weights are meant")
    return files


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, read without running any code that it may hold. Raises CheckpointError."""
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file of before torch 1.6 cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged ones fail in many ways
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise CheckpointError(
            f"{path} was not converted: it is damaged, or holds more than tensors ({reason}); "
            "get the checkpoint in safetensors"
        ) from None
    return tensors_of(found, path)


def tensors_of(found: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of what was read, by name; a training checkpoint has them below "state_dict"."""
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"{path} was not converted: it holds no tensors by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path} was not converted: {name!r} in it is no tensor")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(f"{path} was not converted: {name!r} is sparse, quantized or empty")
    return dict(found)


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, replacing `path` in one step."""
    apart, seen = {}, set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()  # safetensors takes no two tensors that share memory
        apart[name] = tensor.clone().contiguous() if storage in seen else tensor.contiguous()
        seen.add(storage)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(apart, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
