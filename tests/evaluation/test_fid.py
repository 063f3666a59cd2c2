"""Distances of sets of features, compared with closed forms."""

from pathlib import Path

import pytest
import torch

from tests.evaluation.stand_ins import StandIn, new_suite, noise_image, perfect_features, perfect_model, suite_scenes
from unclip.errors import InputError
from unclip.evaluation import fid
from unclip.evaluation.fid import frechet_distance, kernel_distance, measure_distance
from unclip.evaluation.measures import select_parts


def gaussian(n: int, mean: torch.Tensor, deviation: torch.Tensor, seed: int) -> torch.Tensor:
    """Return n points `n d` with exactly this mean and diagonal covariance."""
    points = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centred = points - points.mean(0)
    white = centred @ torch.linalg.inv(torch.linalg.cholesky(centred.T @ centred / (n - 1))).T
    return mean + deviation * white


def test_frechet_distance_of_gaussians() -> None:
    a, b = torch.tensor([0.0, 1.0, -2.0]).double(), torch.tensor([0.5, 1.0, 1.0]).double()
    s, t = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([1.0, 0.5, 3.0]).double()
    expected = ((a - b) ** 2).sum() + ((s - t) ** 2).sum()  # commuting covariances
    assert frechet_distance(gaussian(50, a, s, 0), gaussian(60, b, t, 1)) == pytest.approx(expected.item(), rel=1e-6)
    same = gaussian(50, a, s, 0)
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_of_gaussians() -> None:
    # (x y + 1)^3 = 1 + 3 x y + 3 x^2 y^2 + x^3 y^3: squared differences of the first three moments, with weights.
    places = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    normal = torch.distributions.Normal(0.0, 1.0).icdf(places)[:, None]
    found, deviation = kernel_distance(normal, 1 + normal)
    assert found == pytest.approx(3 * 1**2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2, rel=0.05)
    assert deviation < 0.3 * found
    assert abs(kernel_distance(normal, normal)[0]) < 0.3


def test_the_subsets_leave_the_global_generator_alone() -> None:
    a, b = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert kernel_distance(a, b, seed=1) == kernel_distance(a, b, seed=1) != kernel_distance(a, b, seed=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_perfect_model_is_at_the_floor_and_noise_is_not(tmp_path: Path) -> None:
    def coarse_features(image):
        return perfect_features(image.resize((4, 4)))[:12]

    scenes = suite_scenes()
    perfect = StandIn(perfect_model(scenes).generate, scenes, features=coarse_features)
    generated, floor = measure_distance(new_suite(tmp_path / "perfect", perfect))["rows"]
    assert {**generated, "": ""} == {**floor, "": ""} and floor["n"] == 6
    generated, same_floor = measure_distance(
        new_suite(tmp_path / "noise", StandIn(noise_image, scenes, features=coarse_features))
    )["rows"]
    assert same_floor == floor and generated["Frechet"] > 2 * floor["Frechet"] and generated["kernel"] > floor["kernel"]


def test_a_missing_library_is_reported_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perfect_model(suite_scenes(1))
    assert "distance" in select_parts(model, None)
    monkeypatch.setattr(fid, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^the part 'distance' needs torchmetrics: pip install 'unclip\[evaluate\]'"):
        select_parts(model, None)
    assert select_parts(model, ["clip"]) == ["clip"] and model.generated == 0
