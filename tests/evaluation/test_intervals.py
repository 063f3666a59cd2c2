"""Confidence intervals of rates, means and differences."""

from math import comb

import pytest

from unclip.evaluation.intervals import estimate_difference, format_row, wilson_interval


def test_wilsons_interval_has_its_published_values() -> None:
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_a_row_of_a_table() -> None:
    assert format_row("single", [True, False, True, True], 8) == "single    75.0%  (30.1% to 95.4%, n = 4)"


def paired_outcomes(won: int, lost: int, n: int) -> tuple[list[bool], list[bool]]:
    """Return n paired outcomes: `won` and `lost` discordant pairs, and the rest both false."""
    return [True] * won + [False] * (n - won), [False] * won + [True] * lost + [False] * (n - won - lost)


def test_the_difference_has_its_published_interval() -> None:
    # Fagerland, Lydersen & Laake 2014, table III: 1 and 7 changes in 21
    found = estimate_difference(*paired_outcomes(1, 7, 21))
    assert found["mean"] == pytest.approx(-6 / 21) and found["interval"] == pytest.approx([-0.508, -0.013], abs=1e-3)
    low, high = estimate_difference([True] * 100, [True] * 100)["interval"]
    assert low == -high and 0.01 < high < 0.05  # no discordant pair


@pytest.mark.parametrize(("up", "down"), [(0.02, 0.02), (0.05, 0.01), (0.1, 0.05), (0.2, 0.0)])
def test_the_interval_of_a_difference_has_its_coverage(up: float, down: float) -> None:
    n, covered = 60, 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            chance = comb(n, won) * comb(n - won, lost) * up**won * down**lost * (1 - up - down) ** (n - won - lost)
            if chance > 1e-9:
                low, high = estimate_difference(*paired_outcomes(won, lost, n))["interval"]
                covered += chance * (low <= up - down <= high)
    assert covered > 0.935


def test_a_difference_of_unequal_numbers_is_refused() -> None:
    with pytest.raises(ValueError):
        estimate_difference([True], [True, False])
