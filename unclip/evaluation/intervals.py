"""A rate or a mean, and how far it can be trusted: as values of a report, and as text."""

import math
from collections.abc import Sequence
from typing import Any

Estimate = dict[str, Any]
""""rate" or "mean", its 95% "interval" (low, high), and "n", of how many."""


def interval(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval (1927) of a rate of `right` in `n`; z = 1.96 gives 95%."""
    centre, spread = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)


def rate(outcomes: Sequence[bool]) -> Estimate | None:
    """The share of what came out right, with Wilson's interval; None of nothing."""
    if not outcomes:
        return None
    right, n = sum(map(bool, outcomes)), len(outcomes)
    return {"rate": right / n, "interval": list(interval(right, n)), "n": n}


def difference(outcomes: Sequence[bool], others: Sequence[bool]) -> Estimate:
    """How much higher the rate of `outcomes` is than that of `others`, of the same things one by one.

    A "mean", with the interval of Bonett & Price (2012): one more of either kind of change, in two more things. It is
    far narrower than what two intervals of rates tell, for of most things both come out alike.
    """
    won = sum(one and not other for one, other in zip(outcomes, others, strict=True))
    lost = sum(other and not one for one, other in zip(outcomes, others, strict=True))
    n = len(outcomes)
    up, down = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    spread = 1.96 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    interval = [max(-1.0, up - down - spread), min(1.0, up - down + spread)]
    return {"mean": (won - lost) / n, "interval": interval, "n": n}


def mean(values: Sequence[float]) -> Estimate | None:
    """The mean, with the normal interval of its standard error (of one value, none is known); None of nothing."""
    if not values:
        return None
    n, centre = len(values), math.fsum(values) / len(values)
    if n == 1:
        return {"mean": centre, "interval": None, "n": 1}
    spread = 1.96 * math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)
    return {"mean": centre, "interval": [centre - spread, centre + spread], "n": n}


def text(value: Any) -> str:
    """A value of a report as a cell of a table: an estimate with its interval, a number, or words."""
    if value is None:
        return "-"
    if isinstance(value, dict) and "rate" in value:
        low, high = value["interval"]
        return f"{value['rate']:6.1%}  ({low:.1%} to {high:.1%}, n = {value['n']})"
    if isinstance(value, dict):
        told = "" if value["interval"] is None else f" ± {value['interval'][1] - value['mean']:.2g}"
        return f"{value['mean']:.4g}{told}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def row(name: str, outcomes: Sequence[bool], width: int) -> str:
    """A line of a table: the rate of what came out right, its interval, and of how many."""
    return f"{name:<{width}} {text(rate(outcomes))}"
