"""Rates and means with 95% confidence intervals, as values of a report and as text."""

import math
from collections.abc import Sequence
from typing import Any

Z = 1.96  # standard normal quantile of a two-sided 95% interval

Estimate = dict[str, Any]
"""A "rate" or a "mean", its 95% "interval" (low, high), and "n", the number of observations."""


def wilson_interval(successes: int, n: int, z: float = Z) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of the rate `successes` / `n`."""
    centre, spread = successes + z * z / 2, z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)


def estimate_rate(outcomes: Sequence[bool]) -> Estimate | None:
    """Return the fraction of true outcomes with Wilson's interval; None without outcomes."""
    if not outcomes:
        return None
    successes, n = sum(map(bool, outcomes)), len(outcomes)
    return {"rate": successes / n, "interval": list(wilson_interval(successes, n)), "n": n}


def estimate_difference(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Return the rate of `first` minus the rate of `second`, for paired outcomes.

    The interval is Bonett & Price's (2012): one more discordant pair of either kind, and two more pairs. It is much
    narrower than the intervals of the two rates suggest, since most pairs agree. Raises ValueError for unequal lengths.
    """
    gained = sum(a and not b for a, b in zip(first, second, strict=True))
    lost = sum(b and not a for a, b in zip(first, second, strict=True))
    n = len(first)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    spread = Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    interval = [max(-1.0, up - down - spread), min(1.0, up - down + spread)]
    return {"mean": (gained - lost) / n, "interval": interval, "n": n}


def estimate_mean(values: Sequence[float]) -> Estimate | None:
    """Return the mean with the normal interval of its standard error; None without values.

    The interval of a single value is None.
    """
    if not values:
        return None
    n, centre = len(values), math.fsum(values) / len(values)
    if n == 1:
        return {"mean": centre, "interval": None, "n": 1}
    spread = Z * math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)
    return {"mean": centre, "interval": [centre - spread, centre + spread], "n": n}


def format_value(value: Any) -> str:
    """Return a value of a report as the text of a table cell: an estimate with its interval, a number, or words."""
    if value is None:
        return "-"
    if isinstance(value, dict) and "rate" in value:
        low, high = value["interval"]
        return f"{value['rate']:6.1%}  ({low:.1%} to {high:.1%}, n = {value['n']})"
    if isinstance(value, dict):
        spread = "" if value["interval"] is None else f" ± {value['interval'][1] - value['mean']:.2g}"
        return f"{value['mean']:.4g}{spread}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_row(name: str, outcomes: Sequence[bool], width: int) -> str:
    """Return a line of text: the name, padded to `width`, and the rate of true outcomes with its interval and n."""
    return f"{name:<{width}} {format_value(estimate_rate(outcomes))}"
