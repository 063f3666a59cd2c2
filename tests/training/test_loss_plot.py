"""The plot of a loss curve: its axes, its average, and where the line is."""

import numpy as np
import pytest
from PIL import Image

from unclip.training.loss_plot import LEFT, RIGHT, SIZE, Axis, moving_average, plot_loss


def line(image: Image.Image) -> dict[int, float]:
    """The mean row of the average's colour in each column of pixels that has it."""
    pixels = np.asarray(image).astype(int)
    near = (pixels[..., 2] - pixels[..., 0] > 80) & (pixels[..., 0] < 160)  # h w: blue, and not as light as the range
    return {x: float(np.flatnonzero(near[:, x]).mean()) for x in np.flatnonzero(near.any(0)).tolist()}


def test_the_line_follows_the_losses():
    steps = np.arange(1, 3001)
    image = plot_loss("clip", steps, np.linspace(4.0, 2.0, 3000))
    assert image.size == SIZE
    rows = line(image)
    inside = [rows[x] for x in range(LEFT + 5, SIZE[0] - RIGHT - 20)]
    assert all(a < b + 1 for a, b in zip(inside, inside[10:], strict=False)) and inside[-1] - inside[0] > 300
    assert np.abs(np.diff(inside, 2)).max() < 2  # straight


def test_a_loss_that_falls_far_has_a_logarithmic_axis():
    steps = np.arange(1, 3001)
    rows = line(plot_loss("clip", steps, 10 * np.exp(-steps / 500)))
    inside = [rows[x] for x in range(LEFT + 20, SIZE[0] - RIGHT - 30)]
    slopes = np.diff(inside)
    assert slopes.mean() > 0.3 and np.abs(np.convolve(slopes, np.ones(20) / 20, "valid") - slopes.mean()).max() < 0.2


@pytest.mark.parametrize("losses", [[1.0], [0.0, 0.0], [-1.0, -3.0, 2.0], [1e-30, 1e30], [5.0, 5.0, 5.0]])
def test_any_losses_can_be_plotted(losses: list[float]):
    rows = line(plot_loss("clip", np.arange(len(losses)) + 7.0, np.array(losses)))
    assert rows and all(0 < row < SIZE[1] for row in rows.values())


def test_ticks_are_round_and_on_the_axis():
    assert Axis(0.0, 1.0, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis(1.0, 20_000.0, 0, 100).ticks() == [5000, 10_000, 15_000, 20_000]
    assert Axis(0.03, 4.0, 0, 100, is_log=True).ticks() == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert Axis(1e-9, 1e9, 0, 100, is_log=True).ticks()[0] >= 1e-9
    assert len(Axis(1e-9, 1e9, 0, 100, is_log=True).ticks()) <= 8
    assert Axis(1.0, 100.0, 0, 100, is_log=True).place(10.0) == pytest.approx(50)


def test_the_moving_average():
    values = np.array([1.0, 2.0, 6.0, 3.0])
    assert moving_average(values, 1).tolist() == values.tolist()
    assert moving_average(values, 3).tolist() == pytest.approx([1.5, 3.0, 11 / 3, 4.5])
