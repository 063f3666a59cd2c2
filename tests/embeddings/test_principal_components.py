import pytest
import torch

from unclip.embeddings.principal_components import principal_components
from unclip.errors import RequestError


def test_components_are_the_eigenvectors_of_the_covariance() -> None:
    generator = torch.Generator().manual_seed(4)
    data = torch.randn(400, 5, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.1]) + 2
    found = principal_components(data.split(90))
    torch.testing.assert_close(found.mean, data.mean(0))
    torch.testing.assert_close(found.axes @ found.axes.T, torch.eye(5), rtol=0, atol=1e-5)
    _, _, axes = torch.linalg.svd(data - data.mean(0), full_matrices=False)
    torch.testing.assert_close((found.axes * axes).sum(1).abs(), torch.ones(5), rtol=0, atol=1e-3)


def test_more_components_lower_the_error_and_all_give_the_embedding() -> None:
    data = torch.randn(60, 6, generator=torch.Generator().manual_seed(5))
    found = principal_components([data])
    errors = [float((found.project(data, k) - data).norm()) for k in range(7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4 < errors[-2]
    torch.testing.assert_close(found.project(data, 0), data.mean(0).expand(60, 6))
    with pytest.raises(RequestError, match="components 7 are more than the 6 of this model"):
        found.project(data, 7)
