"""Weights in shards over the processes of a run: FSDP, by torch's `fully_shard`.

Each process keeps some rows of every weight, and of its gradient, its moments and its average. The weights of a block
are whole while that block computes, and those outside of all blocks while the loss is computed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unclip.errors import RecipeError

BLOCKS = frozenset({"resnets", "attentions", "transformer_blocks", "resblocks", "blocks", "layers"})
"""Names of the lists whose modules are divided as units: residual and attention blocks of U-Nets and transformers."""


@dataclass(frozen=True)
class Sharding:
    """Which modules are units, whose weights are gathered together, and for how long they stay whole.

    classes: names of the units' classes. least: the number of weights from which a module is a unit. Without either,
    the units are the modules in the lists BLOCKS. reshard: drop the whole weights of a unit after its forward pass, and
    gather them again for the backward pass.
    """

    classes: tuple[str, ...] = ()
    least: int = 0
    reshard: bool = True


def shard(module: nn.Module, sharding: Sharding, device: torch.device, count: int) -> None:
    """Divide the weights of a module, in place, among `count` processes. Call `module` itself to use them.

    Raises RecipeError if the module has none of the classes of its units.
    """
    module.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue] (others cannot be divided)
    mesh = init_device_mesh(device.type, (count,))
    scalars = {p for p in module.parameters() if p.ndim == 0}  # they have no rows: every process keeps them
    for unit in find_units(module, sharding):
        fully_shard(unit, mesh=mesh, reshard_after_forward=sharding.reshard, ignored_params=scalars)
    fully_shard(module, mesh=mesh, reshard_after_forward=False, ignored_params=scalars)


def find_units(module: nn.Module, sharding: Sharding) -> list[nn.Module]:
    """The modules below `module` that are divided as units, inner ones before those that contain them."""
    inner = [(name, each) for name, each in module.named_modules() if each is not module and [*each.parameters()]]
    inner.reverse()
    if sharding.classes:
        found = [each for _, each in inner if type(each).__name__ in sharding.classes]
        if not found:
            raise RecipeError(
                f"the network has no modules of the classes {', '.join(sharding.classes)} that FSDP should wrap: leave "
                "fsdp_transformer_layer_cls_to_wrap out, for all blocks"
            )
        return found
    if sharding.least:
        units: list[nn.Module] = []
        taken: set[nn.Parameter] = set()
        for _, each in inner:
            own = set(each.parameters()) - taken
            if sum(p.numel() for p in own) >= sharding.least:
                units.append(each)
                taken |= own
        return units
    return [each for name, each in inner if BLOCKS.intersection(name.split(".")[-2:-1])]


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds a part of a tensor only."""
    return isinstance(tensor, DTensor)


@torch.no_grad()
def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, in the same memory; all of a tensor that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """All of a tensor. All processes call this together if it is sharded."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor that each process has whole, on the device of `like` and sharded as that is: this process's part."""
    tensor = tensor.to(like.device)
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


@contextmanager
def whole_weights(module: nn.Module, sharding: Sharding) -> Iterator[None]:
    """Within the block, all weights of a sharded module are whole. All processes enter and leave it together."""
    parts = [each for each in module.modules() if isinstance(each, FSDPModule)]
    for each in parts:
        each.unshard()
        each.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for each in parts:
            each.reshard()
            each.set_reshard_after_forward(sharding.reshard and each is not module, recurse=False)


@torch.no_grad()
def gather_weights(module: nn.Module, averages: Mapping[str, Tensor], keep: bool) -> None:
    """Replace the shards of a module's weights by whole weights on the CPU, in a process that keeps them.

    averages: weights that replace others, by parameter name. Afterwards the module can be saved, and not called.
    """
    for name, parameter in list(module.named_parameters()):
        value = whole(averages.get(name, parameter).detach()).cpu()
        if keep:
            owner, _, own = name.rpartition(".")
            setattr(module.get_submodule(owner), own, nn.Parameter(value, requires_grad=False))
