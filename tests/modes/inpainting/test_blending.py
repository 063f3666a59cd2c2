"""The step in colour at an edge is taken out; what is drawn stays what it is."""

import numpy as np
import torch

from unclip.modes.inpainting.blending import match_edges, membrane

SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
FREE = (X >= 20) & (X < 52) & (Y >= 12) & (Y < 60)
KNOWN = np.where(FREE, 0, 255).astype(np.uint8)


def smooth(slope: float) -> np.ndarray:
    return np.stack([100 + slope * X, 120 + slope * Y, 140 - slope * X], -1).astype(np.float32)


def step(picture: np.ndarray) -> float:
    """The mean step across the left edge of FREE, `h w 3` -> of 255, signs kept within a channel."""
    return float(np.abs((picture[12:60, 20] - picture[12:60, 19]).mean(0)).max())


def test_a_membrane_is_the_harmonic_function_of_its_border() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 70), indexing="ij")
    truth = torch.stack([x * y, x**2 - (y * 47 / 69) ** 2, x + 2 * y])[None]  # harmonic in pixels
    fixed = torch.ones(1, 1, 48, 70)
    fixed[..., 1:-1, 1:-1] = 0
    error = (membrane(truth * fixed, fixed) - truth).abs().amax((0, 2, 3))
    assert (error < 0.05 * truth.abs().amax((0, 2, 3))).all()


def test_a_membrane_goes_on_flat_beyond_a_free_border() -> None:
    fixed = torch.zeros(1, 1, 33, 50)
    fixed[..., 0] = 1
    values = torch.full((1, 2, 33, 50), 7.0) * fixed
    torch.testing.assert_close(membrane(values, fixed), torch.full((1, 2, 33, 50), 7.0))


def test_a_colour_that_is_off_is_brought_back() -> None:
    kept = smooth(0.5)
    off = np.float32([14, -9, 20])
    matched = match_edges(kept - off, kept, KNOWN)
    assert np.abs(matched - (kept - off))[FREE & (X > 33) & (X < 38) & (Y > 33) & (Y < 38)].max() < 6  # it fades
    assert step(np.where(FREE[..., None], kept - off, kept)) > 10 > 2 > step(np.where(FREE[..., None], matched, kept))


def test_an_error_that_changes_along_the_edge_goes_too() -> None:
    kept = smooth(0.25)
    drifting = np.stack([(X - 30) * 0.5, (Y - 30) * 0.5, (X + Y - 60) * 0.3], -1)
    matched = match_edges(kept + drifting, kept, KNOWN)
    beside = FREE & (X < 22)
    assert np.abs(matched - kept)[beside].mean() < 0.2 * np.abs(drifting)[beside].mean()


def test_the_edge_of_an_object_is_left_as_it_is() -> None:
    kept = smooth(0)
    other = np.full_like(kept, 250)  # 110 to 150 from what is around it
    assert np.array_equal(match_edges(other, kept, KNOWN), other)
    partly = np.where((Y < 20)[..., None], other, kept - 8)  # an object that is cut by the upper edge
    matched = match_edges(partly, kept, KNOWN)
    assert np.abs(matched - kept)[FREE & (Y > 40) & (X < 21)].max() < 4
    assert np.abs(matched - other)[FREE & (Y < 18)].max() < 9


def test_texture_is_kept() -> None:
    noise = np.random.default_rng(0).normal(0, 20, (2, SIDE, SIDE, 3)).astype(np.float32)
    kept, drawn = smooth(0) + noise[0], smooth(0) + noise[1] - 15
    matched = match_edges(drawn, kept, KNOWN)
    assert abs(matched[FREE].std() / (smooth(0) + noise[1])[FREE].std() - 1) < 0.05
    beside = FREE & (X < 22)
    assert abs((matched - smooth(0) - noise[1])[beside].mean()) < 8  # of 15: the greatest steps are taken for objects


def test_nothing_is_matched_where_there_is_no_edge() -> None:
    drawn = smooth(1)
    soft = np.where(FREE, np.uint8(128), KNOWN)
    for known in (np.zeros_like(KNOWN), np.full_like(KNOWN, 255), soft):
        assert np.array_equal(match_edges(drawn, drawn + 9, known), drawn)
