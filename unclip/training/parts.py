"""What the tasks of all stages share: fresh networks of a recipe's settings, and checks of their sizes and meaning."""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from unclip.checkpoints import DIFFUSERS, network_config, new_network
from unclip.errors import CheckpointError, RecipeError
from unclip.training.recipe import check_keys, check_type

Loss = tuple[Tensor, dict[str, Tensor]]
Examples = Callable[..., tuple[Tensor, list[str]]]
"""(size, count=16) -> pictures `b 3 size size` in [-1, 1] and captions, to look at and to measure by."""


def new_part(name: str, settings: Mapping[str, Any], computed: Mapping[str, Any], where: str) -> nn.Module:
    """A network of class `name` with fresh weights, of a recipe's settings and those that follow from other ones.

    Raises RecipeError, saying where, for sizes it cannot have and for settings that are computed.
    """
    if name in DIFFUSERS:
        check_keys(settings, inspect.signature(DIFFUSERS[name]).parameters, where)
    if given := [key for key in computed if key in settings]:
        raise RecipeError(f"{where}: {given[0]} follows from the other settings; leave it out")
    try:
        return new_network(name, {**settings, **computed})
    except CheckpointError as error:
        raise RecipeError(f"{where}: {error}") from None


def meaning(networks: Mapping[str, nn.Module], predicts: str) -> dict[str, Any]:
    """What weights mean besides their shapes, as JSON: what is predicted, and the settings of each network."""
    settings = {
        f"{name} {key}": value
        for name, network in networks.items()
        for key, value in network_config(network).items()
        if key not in ("sample_size", "dropout")  # these may change on the way
    }
    return json.loads(json.dumps({"prediction": predicts, **settings}))


def check_meaning(where: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise CheckpointError if weights in `where` mean something else than a recipe's: shapes alone do not tell."""
    for key, value in ours.items():  # what one of the two does not say was not there yet, or is no more
        if key in theirs and theirs[key] != value:
            raise CheckpointError(
                f"{where} has {key} = {theirs[key]!r}, and the recipe {value!r}: take the recipe that it came from"
            )


def coarsest(patch: int, unet: nn.Module) -> int:
    """The side, in pixels, of a position on the coarsest level of a U-Net."""
    return patch * 2 ** (len(unet.config.block_out_channels) - 1)


def check_multiple(where: str, key: str, value: int, of: int) -> None:
    """Raise RecipeError unless `value` is a positive multiple of `of`."""
    check_type(where, key, value, int)
    if value < 1 or of < 1 or value % of:
        raise RecipeError(f"{where}: {key} = {value} should be a multiple of {of}")
