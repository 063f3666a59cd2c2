"""Checks of the values in a network's config that its class would accept, and fail on when it samples."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from unclip.requests.values import show

LEAST = {
    "resnet_out_scale_factor": 1e-3,
    "mid_block_scale_factor": 1e-3,
    "scaling_factor": 1e-3,
    "norm_eps": 1e-12,
}
"""The least values of numbers that diffusers' networks divide by: smaller ones give values that are not finite."""


def check_types(cls: type, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a value of another type than the default that `cls` has for it.

    Without this, some wrong values would raise an error at the first step only, or change images without one.
    """
    for key, parameter in signature(cls).parameters.items():
        value, default = config.get(key), parameter.default
        if value is None or isinstance(value, list | tuple) or default is parameter.empty:
            continue  # one value for each level, or a setting that the network checks by using it
        kinds = {bool: bool, int: (int, float), float: (int, float), str: str}.get(type(default))
        wrong = isinstance(value, dict) if kinds is None else not isinstance(value, kinds)
        wrong = wrong or (isinstance(value, bool) and type(default) in (int, float))
        if wrong or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{key} is {show(value)}, and should be like {show(default)}")


def check_divisors(cls: type, config: Mapping[str, Any]) -> None:
    """Raise ValueError for a value by which a network of diffusers would divide to a result that is not finite."""
    known = signature(cls).parameters
    for key, least in LEAST.items():
        if key in known and not (_is_number(value := config.get(key, known[key].default)) and value >= least):
            raise ValueError(f"{key} is {show(value)}, and should be a number from {least:g} up")
    if "shift_factor" in known and not ((value := config.get("shift_factor")) is None or _is_number(value)):
        raise ValueError(f"shift_factor is {show(value)}, and should be a number")
    widths = config.get("block_out_channels")
    if "freq_shift" in known and isinstance(widths, list | tuple) and widths and _is_number(widths[0]):
        frequencies = widths[0] // 2  # the last one's exponent is divided by their number less the shift
        value = config.get("freq_shift", known["freq_shift"].default)
        if not _is_number(value) or value >= frequencies:
            raise ValueError(f"freq_shift is {show(value)}, and should be a number below {frequencies}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
