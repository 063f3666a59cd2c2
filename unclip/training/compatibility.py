"""Whether two checkpoints may be trained on or combined: the meaning of their latents and outputs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from unclip.checkpoints.networks import network_config
from unclip.errors import CheckpointError


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
