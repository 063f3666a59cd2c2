import pytest

from unclip.evaluation.rates import interval, row


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
