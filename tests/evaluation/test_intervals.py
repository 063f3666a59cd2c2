from math import comb

import pytest

from unclip.evaluation.intervals import difference, interval, row


def test_wilsons_interval_against_published_values():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert interval(right, n) == pytest.approx((low, high), abs=1e-4)


def test_a_row_of_a_table():
    assert row("single", [True, False, True, True], 8) == "single    75.0%  (30.1% to 95.4%, n = 4)"


def changes(won: int, lost: int, n: int) -> tuple[list[bool], list[bool]]:
    """Outcomes, and others of the same things."""
    return [True] * won + [False] * (n - won), [False] * won + [True] * lost + [False] * (n - won - lost)


def test_the_difference_of_the_same_things_one_by_one():
    # Fagerland, Lydersen & Laake 2014, table III: 1 and 7 changes in 21
    found = difference(*changes(1, 7, 21))
    assert found["mean"] == pytest.approx(-6 / 21) and found["interval"] == pytest.approx([-0.508, -0.013], abs=1e-3)
    low, high = difference([True] * 100, [True] * 100)["interval"]
    assert low == -high and 0.01 < high < 0.05  # nothing changed, of so many


@pytest.mark.parametrize(("up", "down"), [(0.02, 0.02), (0.05, 0.01), (0.1, 0.05), (0.2, 0.0)])
def test_the_true_difference_is_in_its_interval_as_often_as_it_says(up: float, down: float):
    n, covered = 60, 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            chance = comb(n, won) * comb(n - won, lost) * up**won * down**lost * (1 - up - down) ** (n - won - lost)
            if chance > 1e-9:
                low, high = difference(*changes(won, lost, n))["interval"]
                covered += chance * (low <= up - down <= high)
    assert covered > 0.935


def test_a_difference_of_unequal_numbers_is_refused():
    with pytest.raises(ValueError):
        difference([True], [True, False])
