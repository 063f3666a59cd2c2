"""What the tasks of all stages share: fresh networks of a recipe's settings, and checks of their sizes and meaning."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.networks import DIFFUSERS_CLASSES, new_network
from unclip.errors import CheckpointError, RecipeError
from unclip.training.recipe import check_keys, check_type


class Task(Protocol):
    """What a stage trains: a network, a loss, and a picture that shows how far it has come."""

    network: nn.Module
    size: int  # of the pictures it wants
    predicts: str  # what the network says: what its weights mean

    def loss(
        self, network: nn.Module, images: Tensor, captions: list[str], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Images `b 3 h w` in [-1, 1] and captions -> the loss, and figures for the curve.

        `network` is `self.network` as wrapped for speed; everything random comes from `generator` (on the CPU).
        """

    def grid(self) -> Image.Image | None:
        """A picture of what `self.network` does with its present weights, or None."""

    def networks(self) -> dict[str, nn.Module]:
        """The components that the checkpoint keeps, by the names of their folders."""


Loss = tuple[Tensor, dict[str, Tensor]]

Examples = Callable[..., tuple[Tensor, list[str]]]
"""(size, count=16) -> pictures `b 3 size size` in [-1, 1] and captions, to look at and to measure by."""


def new_part(name: str, settings: Mapping[str, Any], computed: Mapping[str, Any], where: str) -> nn.Module:
    """A network of class `name` with fresh weights, of a recipe's settings and those that follow from other ones.

    Raises RecipeError, saying where, for sizes it cannot have and for settings that are computed.
    """
    if name in DIFFUSERS_CLASSES:
        check_keys(settings, inspect.signature(DIFFUSERS_CLASSES[name]).parameters, where)
    if given := [key for key in computed if key in settings]:
        raise RecipeError(f"{where}: {given[0]} follows from the other settings; leave it out")
    try:
        return new_network(name, {**settings, **computed})
    except CheckpointError as error:
        raise RecipeError(f"{where}: {error}") from None


def coarsest(patch: int, unet: nn.Module) -> int:
    """The side, in pixels, of a position on the coarsest level of a U-Net."""
    return patch * 2 ** (len(unet.config.block_out_channels) - 1)


def check_multiple(where: str, key: str, value: int, of: int) -> None:
    """Raise RecipeError unless `value` is a positive multiple of `of`."""
    check_type(where, key, value, int)
    if value < 1 or of < 1 or value % of:
        raise RecipeError(f"{where}: {key} = {value} should be a multiple of {of}")
