"""Checks that weights fit a recipe: tensors of equal shape can still mean different things."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unclip.checkpoints.index import prediction_target
from unclip.checkpoints.networks import network_config
from unclip.checkpoints.tensors import read_tensors
from unclip.errors import CheckpointError, RecipeError
from unclip.training.recipe import Recipe
from unclip.training.tasks.options import PREDICTIONS, prediction_of

MUTABLE = ("sample_size", "dropout", "layout_spread", "layout_vary")
"""Settings of a network that may change between two runs with the same weights."""


def weight_settings(networks: Mapping[str, nn.Module], predicts: str) -> dict[str, Any]:
    """The settings that decide what weights mean, as JSON values: the prediction, and the config of each network."""
    settings = {
        f"{name} {key}": value
        for name, network in networks.items()
        for key, value in network_config(network).items()
        if key not in MUTABLE
    }
    return json.loads(json.dumps({"prediction": predicts, **settings}))


def check_weight_settings(source: Path, recipe: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise CheckpointError if weights were made with other settings than the recipe's.

    source: the file or folder of the weights, whose settings are `found`. Settings that only one of the two has are
    not compared: another version of the software knew other settings.
    """
    for key, value in recipe.items():
        if key in found and found[key] != value:
            raise CheckpointError(
                f"{source} has {key} = {found[key]!r}, and the recipe {value!r}: use the recipe it was trained with"
            )


def check_predictions(stages: Collection[str], recipe: Recipe, model: Path) -> None:
    """Raise RecipeError unless the stages of a checkpoint that denoise predict the same as the recipe's."""
    for stage in stages:
        if stage in ("clip", "autoregressive_prior"):  # they denoise nothing
            continue
        ours, theirs = prediction_of(recipe.stage(stage).task), prediction_target(model, stage)
        if theirs != ours:
            known = theirs in PREDICTIONS[stage]
            fix = f'set prediction = "{theirs}" in [{stage}.task]' if known else "train it without --init"
            raise RecipeError(f'the {stage} of {model} predicts "{theirs}", and this recipe\'s "{ours}": {fix}')


def same_weights(first: Path, second: Path) -> bool:
    """Whether two component folders hold the same weights, up to rounding to half precision."""
    ours, theirs = read_tensors(first, "cpu", torch.float32), read_tensors(second, "cpu", torch.float32)
    return ours.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and torch.allclose(value, theirs[name], rtol=2e-3, atol=1e-6)
        for name, value in ours.items()
    )
