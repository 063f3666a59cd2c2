"""The weights that a stage starts from: those of another model, whose decoder may lack inputs that the recipe's has."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoints.networks import parameter_shapes
from unclip.checkpoints.tensors import Shapes, read_tensors, tensor_shapes
from unclip.errors import CheckpointError
from unclip.models.config import diffusers_config
from unclip.models.decoder import Decoder
from unclip.models.layout import MAP_CHANNELS
from unclip.system.files import read_json
from unclip.training.compatibility import check_weight_settings, weight_settings
from unclip.training.tasks.base import Task

FIRST, LAYOUT = "conv_in.weight", "layout_proj.weight"
"""The decoder's tensors that read further inputs: its first convolution, and the projection of a layout."""


def check_initial_weights(task: Task, model: Path) -> None:
    """Raise CheckpointError unless a checkpoint has weights of the sizes and with the settings of a task's networks.

    A decoder may have more inputs than the checkpoint's: known pixels and their mask, or a layout.
    """
    grows = new_inputs(task, model) is not None
    for component, network in task.networks().items():
        found, wanted = tensor_shapes(model / component), parameter_shapes(network)
        if grows:
            found |= {name: wanted[name] for name in (FIRST, LAYOUT) if name in wanted}
        if found != wanted:
            raise CheckpointError(
                f"the {component} of {model} does not have the recipe's sizes ({difference(found, wanted)}): use a "
                "model of this recipe"
            )
        config = read_json(model / component / "config.json")
        if grows and component == "decoder":
            del config["in_channels"]
        settings = {f"{component} {key}": value for key, value in config.items()}
        check_weight_settings(model, weight_settings({component: network}, task.predicts), settings)


def load_initial_weights(task: Task, model: Path, exclude: Collection[str] = ()) -> None:
    """Load the weights of a checkpoint into a task's networks, except those named in `exclude`.

    Weights of inputs that the checkpoint's decoder lacks are 0, so that it computes the same as before.
    Raises CheckpointError if sizes or settings differ.
    """
    check_initial_weights(task, model)
    inputs = new_inputs(task, model)
    for component, network in task.networks().items():
        weights = read_tensors(model / component, "cpu", torch.float32)
        own = network.state_dict()
        weights |= {name: value for name, value in own.items() if name in exclude}
        if inputs is not None and component == "decoder":
            first = torch.zeros_like(own[FIRST], device="cpu")
            first[:, inputs] = weights[FIRST]
            weights[FIRST] = first
        if inputs is not None and LAYOUT in own and LAYOUT not in weights:
            weights[LAYOUT] = torch.zeros_like(own[LAYOUT], device="cpu")
        network.load_state_dict(weights)


def new_inputs(task: Task, model: Path) -> Tensor | None:
    """For each input channel of a checkpoint's decoder, its index among those of a task's decoder, which has more.

    None for another stage, for a decoder with as many inputs, and for one that lacks inputs of the checkpoint's.
    """
    network: Any = task.network
    if not isinstance(network, Decoder) or not (model / "decoder" / "config.json").is_file():
        return None
    before = read_json(model / "decoder" / "config.json").get("in_channels")
    with_layouts = bool(read_json(model / "text_proj" / "config.json").get("layout_size"))
    wanted = diffusers_config(network.unet).in_channels
    if not isinstance(before, int) or before >= wanted:
        return None
    old, new = (
        split_inputs(count, network.channels, layouts)
        for count, layouts in ((before, with_layouts), (wanted, network.has_layouts))
    )
    indices, start = [], 0
    for own, count in zip(old, new, strict=True):
        if own not in (0, count):
            return None
        indices += range(start, start + own)
        start += count
    return torch.tensor(indices)


def split_inputs(count: int, channels: int, layouts: bool) -> tuple[int, int, int]:
    """The input channels of a decoder for the noisy latent, for known pixels and their mask, and for a layout."""
    coordinates = MAP_CHANNELS if layouts else 0
    return channels, count - channels - coordinates, coordinates


def difference(found: Shapes, wanted: Shapes) -> str:
    """The first tensor whose shapes differ, and both shapes."""
    name = min(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    ours, theirs = ("x".join(map(str, shapes[name])) if name in shapes else "none" for shapes in (wanted, found))
    return f"{name} is {theirs} and not {ours}"
