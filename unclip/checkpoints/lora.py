"""LoRA files: low-rank changes of a network's weights, added to them as they are read.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685): W + scale * alpha / rank * B A.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoints.additions import find_lora
from unclip.checkpoints.networks import ReadTensors
from unclip.checkpoints.tensors import Shapes
from unclip.checkpoints.weight_files import open_safetensors
from unclip.errors import CheckpointError
from unclip.requests.values import show

_PREFIXES = ("lora_unet_", "unet.", "decoder.", "prior.", "transformer.", "base_model.model.")
"""What training programs put before the names of a network's modules."""
# The names of peft, of diffusers before peft, of kohya's sd-scripts, and of diffusers' attention processors, which
# Kandinsky's own examples train. In the last, "to_q_lora" is the low-rank part of "to_q".
_NAMES = (
    re.compile(r"(?P<module>.+)\.lora_(?P<part>A|B)(?:\.default)?\.weight"),
    re.compile(r"(?P<module>.+)\.lora\.(?P<part>down|up)\.weight"),
    re.compile(r"(?P<module>lora_unet_.+)\.lora_(?P<part>down|up)\.weight"),
    re.compile(r"(?P<module>.+)_lora\.(?P<part>down|up)\.weight"),
)
_ALPHA = re.compile(r"(?P<module>.+?)(?:_lora)?(?:\.lora)?\.(?:network_)?alpha")


@dataclass(frozen=True)
class LowRank:
    """The change of one weight: factor * up @ down. down: `r i` or `r i h w`. up: `o r` or `o r 1 1`."""

    down: Tensor
    up: Tensor
    factor: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that it changes."""
        return self.up.shape[0], *self.down.shape[1:]

    def added_to(self, weight: Tensor) -> Tensor:
        """The changed weight, in its own precision; the sum is computed in float32."""
        down, up = (part.to(weight.device, torch.float32).flatten(1) for part in (self.down, self.up))
        return (weight.float() + self.factor * (up @ down).view(weight.shape)).to(weight.dtype)


@dataclass(frozen=True)
class Lora:
    """A LoRA file. changes: by the name of the module in its network, with "_" for ".", as kohya's files have them."""

    path: Path
    scale: float
    changes: Mapping[str, LowRank]

    @property
    def name(self) -> str:
        """The name for records."""
        return self.path.name if self.scale == 1 else f"{self.path.name}:{self.scale:g}"

    def fits(self, shapes: Shapes) -> bool:
        """Whether a network with parameters of these shapes has every weight that the file changes."""
        found = {flat_name(name): shape for name, shape in shapes.items() if name.endswith(".weight")}
        return all(found.get(name) == change.shape for name, change in self.changes.items())


def read_lora(text: str | Path) -> Lora:
    """The LoRA in a safetensors file. Raises CheckpointError for a file that is missing, damaged or not a LoRA."""
    path, scale = find_lora(text)
    parts: dict[str, dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    with open_safetensors(path) as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            if found := next(filter(None, (pattern.fullmatch(name) for pattern in _NAMES)), None):
                part = {"A": "down", "B": "up"}.get(found["part"], found["part"])
                parts.setdefault(module_name(found["module"]), {})[part] = file.get_tensor(name)
            elif found := _ALPHA.fullmatch(name):
                alphas[module_name(found["module"])] = float(file.get_tensor(name))
            else:
                raise CheckpointError(
                    f"{path} is not a LoRA of a U-Net or a prior alone: it has a tensor {show(name)}; "
                    "train it again without other networks"
                )
    if not parts:
        raise CheckpointError(f"{path} has no tensors of a LoRA")
    return Lora(path, scale, {flat_name(name): change for name, change in _changes(path, parts, alphas, scale)})


def _changes(
    path: Path, parts: Mapping[str, Mapping[str, Tensor]], alphas: Mapping[str, float], scale: float
) -> Iterator[tuple[str, LowRank]]:
    """(module, change) of all pairs. Raises CheckpointError for half a pair, or one whose ranks differ."""
    for module, pair in parts.items():
        if pair.keys() != {"down", "up"}:
            raise CheckpointError(f"{path} is damaged: {show(module)} has only half of its pair; copy it again")
        down, up = pair["down"], pair["up"]
        if down.ndim not in (2, 4) or up.ndim != down.ndim or up.shape[1] != down.shape[0] or up[0, 0].numel() != 1:
            raise CheckpointError(f"{path}: {show(module)} has shapes {[*down.shape]} and {[*up.shape]}, not a LoRA's")
        rank = down.shape[0]
        yield module, LowRank(down, up, scale * alphas.get(module, rank) / rank)


def module_name(name: str) -> str:
    """The name of the module in its network, from the name in a LoRA file."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    name = name.replace(".processor.", ".")
    return f"{name}.0" if name.endswith(".to_out") else name


def flat_name(name: str) -> str:
    """The name of a module or of its weight, as keys of `Lora.changes` are."""
    return name.removesuffix(".weight").replace(".", "_")


def with_loras(read: ReadTensors, loras: Sequence[Lora]) -> ReadTensors:
    """A reader of tensors that adds the changes of LoRA files, one after the other."""
    if not loras:
        return read

    def read_changed(names: Collection[str]) -> dict[str, Tensor]:
        tensors = read(names)
        for lora in loras:
            for name in tensors:
                if name.endswith(".weight") and (change := lora.changes.get(flat_name(name))) is not None:
                    tensors[name] = change.added_to(tensors[name])
        return tensors

    return read_changed
