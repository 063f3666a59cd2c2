"""A rate, and how far it can be trusted."""

import math
from collections.abc import Sequence


def interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (1927) of a rate of `right` in `n`; z = 1.96 gives 95%."""
    centre, spread = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)


def row(name: str, outcomes: Sequence[bool], width: int) -> str:
    """A line of a table: the rate of what came out right, its interval, and of how many."""
    low, high = interval(sum(outcomes), len(outcomes))
    return f"{name:<{width}} {sum(outcomes) / len(outcomes):6.1%}  ({low:.1%} to {high:.1%}, n = {len(outcomes)})"
