"""Typed access to the configs of diffusers' networks."""

from typing import Any

from torch import nn


def diffusers_config(network: nn.Module) -> Any:
    """The config of a network, with its settings as attributes. `nn.Module` hides its type."""
    return network.config
