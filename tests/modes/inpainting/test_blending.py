"""Blending: colour steps at the edges of generated pixels are corrected, textures and objects are not."""

import numpy as np
import pytest
import torch

from unclip.modes.inpainting.blending import match_edges, membrane

SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
MASKED = (X >= 20) & (X < 52) & (Y >= 12) & (Y < 60)
KNOWN = np.where(MASKED, 0, 255).astype(np.uint8)


def smooth(slope: float) -> np.ndarray:
    return np.stack([100 + slope * X, 120 + slope * Y, 140 - slope * X], -1).astype(np.float32)


def step(image: np.ndarray) -> float:
    """The mean step across the left edge of MASKED, `h w 3` -> of 255, signs kept within a channel."""
    return float(np.abs((image[12:60, 20] - image[12:60, 19]).mean(0)).max())


def test_a_membrane_is_the_harmonic_function_of_its_border() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 70), indexing="ij")
    truth = torch.stack([x * y, x**2 - (y * 47 / 69) ** 2, x + 2 * y])[None]  # harmonic in pixels
    fixed = torch.ones(1, 1, 48, 70)
    fixed[..., 1:-1, 1:-1] = 0
    error = (membrane(truth * fixed, fixed) - truth).abs().amax((0, 2, 3))
    assert (error < 0.05 * truth.abs().amax((0, 2, 3))).all()


def test_a_membrane_is_flat_towards_a_free_border() -> None:
    fixed = torch.zeros(1, 1, 33, 50)
    fixed[..., 0] = 1
    values = torch.full((1, 2, 33, 50), 7.0) * fixed
    torch.testing.assert_close(membrane(values, fixed), torch.full((1, 2, 33, 50), 7.0))


def test_a_constant_colour_error_is_corrected() -> None:
    kept = smooth(0.5)
    off = np.float32([14, -9, 20])
    matched = match_edges(kept - off, kept, KNOWN)
    assert np.abs(matched - (kept - off))[MASKED & (X > 33) & (X < 38) & (Y > 33) & (Y < 38)].max() < 6  # it fades
    assert (
        step(np.where(MASKED[..., None], kept - off, kept)) > 10 > 2 > step(np.where(MASKED[..., None], matched, kept))
    )


def test_an_error_that_changes_along_the_edge_is_corrected() -> None:
    kept = smooth(0.25)
    drifting = np.stack([(X - 30) * 0.5, (Y - 30) * 0.5, (X + Y - 60) * 0.3], -1)
    matched = match_edges(kept + drifting, kept, KNOWN)
    beside = MASKED & (X < 22)
    assert np.abs(matched - kept)[beside].mean() < 0.2 * np.abs(drifting)[beside].mean()


def test_the_edge_of_an_object_is_preserved() -> None:
    kept = smooth(0)
    other = np.full_like(kept, 250)  # 110 to 150 from the pixels around it
    assert np.array_equal(match_edges(other, kept, KNOWN), other)
    partly = np.where((Y < 20)[..., None], other, kept - 8)  # an object that is cut by the upper edge
    matched = match_edges(partly, kept, KNOWN)
    assert np.abs(matched - kept)[MASKED & (Y > 40) & (X < 21)].max() < 4
    assert np.abs(matched - other)[MASKED & (Y < 18)].max() < 9


def test_texture_is_preserved() -> None:
    noise = np.random.default_rng(0).normal(0, 20, (2, SIDE, SIDE, 3)).astype(np.float32)
    kept, generated = smooth(0) + noise[0], smooth(0) + noise[1] - 15
    matched = match_edges(generated, kept, KNOWN)
    assert abs(matched[MASKED].std() / (smooth(0) + noise[1])[MASKED].std() - 1) < 0.05
    beside = MASKED & (X < 22)
    assert abs((matched - smooth(0) - noise[1])[beside].mean()) < 8  # of 15: the largest steps count as objects


def test_without_an_edge_nothing_changes() -> None:
    generated = smooth(1)
    soft = np.where(MASKED, np.uint8(128), KNOWN)
    for known in (np.zeros_like(KNOWN), np.full_like(KNOWN, 255), soft):
        assert np.array_equal(match_edges(generated, generated + 9, known), generated)


@pytest.mark.parametrize("height", [1, 4, 12])
def test_a_constant_colour_error_is_corrected_in_a_thin_image(height: int) -> None:
    kept = smooth(0.5)[30 : 30 + height]
    off, masked = np.float32([14, -9, 20]), MASKED[30 : 30 + height]
    matched = match_edges(kept - off, kept, KNOWN[30 : 30 + height])
    beside = masked & (X[:height] < 23)
    assert np.abs(matched - kept)[beside].mean() < 0.35 * np.abs(off).mean()
    middle = masked & (X[:height] > 34) & (X[:height] < 37)
    assert np.abs(matched - (kept - off))[middle].max() < 8  # it fades along the strip
