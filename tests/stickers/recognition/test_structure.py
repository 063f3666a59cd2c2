"""Structural similarity: 1 for the truth, low where a quarter of an object is wrong."""

import numpy as np
import pytest

from unclip.stickers.recognition.structure import structural_similarity

SQUARES = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((32, 32)))[..., None] * np.ones(3)
ALL = np.ones((256, 256), bool)


def test_the_truth_is_perfect_and_its_negative_is_not() -> None:
    assert structural_similarity(SQUARES, SQUARES, ALL, 0.25) == pytest.approx(1)
    assert structural_similarity(1 - SQUARES, SQUARES, ALL, 0.25) < -0.5
    assert structural_similarity(np.full_like(SQUARES, 0.5), SQUARES, ALL, 0.25) < 0.1


def test_a_wrong_third_counts_more_than_a_faint_error_everywhere() -> None:
    partly, faintly = SQUARES.copy(), 0.1 + 0.8 * SQUARES
    partly[:, :85] = 0.5
    assert structural_similarity(faintly, SQUARES, ALL, 0.1) > 0.9
    assert structural_similarity(partly, SQUARES, ALL, 0.1) < 0.2


def test_only_the_region_counts() -> None:
    image, region = SQUARES.copy(), ALL.copy()
    image[:, :128] = 0
    region[:, :160] = False
    assert structural_similarity(image, SQUARES, region, 0.05) == pytest.approx(1)
    assert structural_similarity(image, SQUARES, ALL, 0.05) < 0.5


def test_small_images_and_regions_are_compared_as_they_are() -> None:
    image = SQUARES[::4, ::4]
    spot = np.zeros((64, 64), bool)
    spot[10, 10] = True
    assert structural_similarity(image, image, spot, 0.01) == pytest.approx(1)
    one = np.zeros((256, 256), bool)
    one[10, 10] = True
    assert structural_similarity(SQUARES, SQUARES, one, 0.01) == pytest.approx(1)
