"""Distances of sets of features, against closed forms."""

from pathlib import Path

import pytest
import torch

from tests.evaluation.stand_in import StandIn, asked, features, noise, renderer, suite
from unclip.errors import InputError
from unclip.evaluation import fid as distances
from unclip.evaluation.fid import distance, frechet, kernel
from unclip.evaluation.measures import chosen


def gaussian(n: int, mean: torch.Tensor, deviation: torch.Tensor, seed: int) -> torch.Tensor:
    """n points `n d` whose mean and (diagonal) covariance are these, exactly."""
    points = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centred = points - points.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T @ centred / (n - 1))).T
    return mean + deviation * white


def test_frechet_distance_of_gaussians() -> None:
    a, b = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([0.5, 1.0, 1.0]).double()
    s, t = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.0, 0.5, 3.0]).double()
    wanted = ((a - b) ** 2).sum() + ((s - t) ** 2).sum()  # commuting covariances
    assert frechet(gaussian(50, a, s, 0), gaussian(60, b, t, 1)) == pytest.approx(wanted.item(), rel=1e-6)
    same = gaussian(50, a, s, 0)
    assert frechet(same, same) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_of_gaussians() -> None:
    # (x y + 1)^3 = 1 + 3 x y + 3 x^2 y^2 + x^3 y^3: the squared differences of the first three moments, so weighted.
    places = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    normal = torch.distributions.Normal(0.0, 1.0).icdf(places)[:, None]
    found, deviation = kernel(normal, 1 + normal)
    assert found == pytest.approx(3 * 1**2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2, rel=0.05)
    assert deviation < 0.3 * found
    assert abs(kernel(normal, normal)[0]) < 0.3


def test_the_subsets_are_drawn_apart_from_the_global_generator() -> None:
    a, b = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert kernel(a, b, seed=1) == kernel(a, b, seed=1) != kernel(a, b, seed=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_perfect_model_is_at_the_floor_and_noise_is_not(tmp_path: Path) -> None:
    def look(image):
        return features(image.resize((4, 4)))[:12]

    scenes = asked()
    perfect = StandIn(renderer(scenes).paint, scenes, look=look)
    drawn, floor = distance(suite(tmp_path / "perfect", perfect))["rows"]
    assert {**drawn, "": ""} == {**floor, "": ""} and floor["n"] == 6
    drawn, same_floor = distance(suite(tmp_path / "noise", StandIn(noise, scenes, look=look)))["rows"]
    assert same_floor == floor and drawn["Frechet"] > 2 * floor["Frechet"] and drawn["kernel"] > floor["kernel"]


def test_what_is_missing_is_named_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    model = renderer(asked(1))
    assert "distance" in chosen(model, None)
    monkeypatch.setattr(distances, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^the part 'distance' needs torchmetrics: pip install 'unclip\[evaluate\]'"):
        chosen(model, None)
    assert chosen(model, ["clip"]) == ["clip"] and model.drawn == 0
