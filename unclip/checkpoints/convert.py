"""Convert pickled weights to safetensors, with torch's weights-only loader, which builds nothing but tensors."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unclip.checkpoints.index import PICKLE_SUFFIXES, find_weight_files, read_weight_map
from unclip.errors import CheckpointError
from unclip.requests.values import show
from unclip.system.files import check_writable, write_json

SAFE_NAMES = {"pytorch_model": "model"}  # transformers names the safetensors file differently


def convert_checkpoint(folder: Path, out: Path | None = None) -> Iterator[str]:
    """Convert the pickles of a checkpoint, or of one component; yields one line per converted file.

    out: a new folder for the converted checkpoint, without pickles; None writes into `folder`. Components that have
    safetensors are left as they are. Raises CheckpointError for a pickle that contains anything but tensors.
    """
    components = [part for part in (folder, *sorted(p for p in folder.glob("*") if p.is_dir())) if find_pickles(part)]
    components = [component for component in components if not find_weight_files(component)]
    if not components:
        raise CheckpointError(f"{folder} holds no pickled weights to convert")
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is not empty; give a new folder")
    check_writable(folder if out is None else out)
    if out is not None:
        pickles = [f"*{suffix}{end}" for suffix in PICKLE_SUFFIXES for end in ("", ".index.json")]
        shutil.copytree(folder, out, ignore=shutil.ignore_patterns(*pickles), dirs_exist_ok=True)
    for component in components:
        yield from convert_component(component, component if out is None else out / component.relative_to(folder))


def convert_component(folder: Path, out: Path) -> Iterator[str]:
    """Convert the pickles of one component into the folder `out`; yields one line per file."""
    weight_map: dict[str, str] = {}
    files = find_pickles(folder)
    for file in files:
        tensors = read_pickle(file)
        path = out / f"{SAFE_NAMES.get(file.stem, file.stem)}.safetensors"
        weight_map |= dict.fromkeys(tensors, path.name)
        save_tensors(tensors, path)
        count = sum(tensor.numel() for tensor in tensors.values())
        yield f"{file} -> {path}: {len(tensors)} tensors, {count / 1e6:.1f} M values"
    if len(files) > 1:
        write_json(out / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def find_pickles(folder: Path) -> list[Path]:
    """The pickled weight files of a component: the files in its shard index, else the only file that is no variant."""
    indexes = sorted(folder.glob("*.bin.index.json"))
    if indexes:
        return read_weight_map(indexes[0])
    files = sorted(
        p for p in folder.glob("*") if p.suffix in PICKLE_SUFFIXES and p.name.count(".") == 1 and p.is_file()
    )
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{folder} holds several pickles ({names}): keep only the one to convert")
    return files


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, read without running code that it may contain. Raises CheckpointError."""
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files written before torch 1.6 cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of errors
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise CheckpointError(
            f"{path} was not converted: it is damaged, or holds more than tensors ({reason}); "
            "get the checkpoint in safetensors"
        ) from None
    return extract_tensors(content, path)


def extract_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name in the content of a pickle; training checkpoints have them below "state_dict"."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} was not converted: it holds no tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path} was not converted: {show(name)} in it is not a tensor")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise CheckpointError(f"{path} was not converted: {show(name)} is sparse, quantized or empty")
    return dict(content)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, replacing `path` atomically."""
    separate, storages = {}, set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()  # safetensors refuses tensors that share memory
        separate[name] = tensor.clone().contiguous() if storage in storages else tensor.contiguous()
        storages.add(storage)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(separate, temporary, metadata={"format": "pt"})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
