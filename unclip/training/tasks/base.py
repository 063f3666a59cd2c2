"""The Task protocol, and helpers that build and check the networks of a recipe."""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

from PIL import Image
from torch import Tensor, nn

from unclip.checkpoints.networks import DIFFUSERS_CLASSES, new_network
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError, RecipeError
from unclip.training.batch import Batch
from unclip.training.tables import check_keys

Loss = tuple[Tensor, dict[str, Tensor]]
"""A scalar loss, and further figures for the loss curve."""


class Task(Protocol):
    """The training task of a stage: a network, its loss, and sample images that show the progress."""

    @property
    def network(self) -> nn.Module:
        """The network that is trained."""
        ...

    @property
    def size(self) -> int:
        """Side of the training images in pixels."""
        ...

    @property
    def predicts(self) -> str:
        """The output of the network, such as "sample" or "v_prediction": it decides what the weights mean."""
        ...

    @property
    def schedule(self) -> Schedule | None:
        """The noise schedule of the finished stage; None for CLIP and the autoregressive prior."""
        ...

    def fit_to_data(self) -> None:
        """Set the initial weights that are measured on examples. Call it once, before the training."""
        ...

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The mean loss of the rows of a batch, which is the source of all random numbers except dropout's.

        network: `self.network`, possibly compiled, or wrapped for several processes.
        """
        ...

    def sample_grid(self) -> Image.Image | None:
        """A contact sheet of samples from the network's current weights, or None for a task without images."""
        ...

    def networks(self) -> dict[str, nn.Module]:
        """The components of the checkpoint, by the names of their folders."""
        ...

    def stage_config(self) -> dict[str, Any]:
        """The stage's entry in model_index.json: how the finished model samples it. Empty for CLIP."""
        ...


class Examples(Protocol):
    """Images and captions of the training data that no run reaches: for statistics and sample grids."""

    def __call__(self, size: int, count: int = 16) -> tuple[Tensor, list[str]]:
        """Images `count 3 size size` in [-1, 1] and their captions."""
        ...


def build_network(name: str, settings: Mapping[str, Any], computed: Mapping[str, Any], where: str) -> Any:
    """A network of the class `name` with new random weights.

    settings: from the recipe. computed: settings that follow from others, which the recipe must not set. where: the
    recipe's file and table, for messages. Raises RecipeError for an unknown setting or one that does not fit.
    """
    if name in DIFFUSERS_CLASSES:
        check_keys(settings, list(inspect.signature(DIFFUSERS_CLASSES[name]).parameters), where)
    if given := [key for key in computed if key in settings]:
        raise RecipeError(f"{where}: {given[0]} follows from the other settings; leave it out")
    try:
        return new_network(name, {**settings, **computed})
    except CheckpointError as error:
        raise RecipeError(f"{where}: {error}") from None


def coarsest_cell(patch: int, unet: Any) -> int:
    """Side in pixels of one position at the coarsest level of a U-Net on patches of `patch` pixels."""
    return patch * 2 ** (len(unet.config.block_out_channels) - 1)


def check_multiple(where: str, key: str, value: int, factor: int) -> None:
    """Raise RecipeError unless `value` is a positive multiple of `factor`."""
    if value < 1 or factor < 1 or value % factor:
        raise RecipeError(f"{where}: {key} = {value} should be a multiple of {factor}")
