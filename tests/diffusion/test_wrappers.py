import torch
from torch import Tensor

from unclip.diffusion.denoiser import Prediction
from unclip.diffusion.wrappers import clamp_x0, map_x0, observe_x0

X = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


T = torch.tensor([10, 700])


N = 6


SHAPE = (3, 16, 16)


def changing_denoiser(variance: bool):
    """A denoiser whose x0 differs at every step, with the largest variance if any."""

    def denoise(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(torch.sin(37 * x + t.view(-1, 1, 1, 1)), torch.ones_like(x) if variance else None)

    return denoise


def test_clamp_x0_limits_x0_and_keeps_the_variance() -> None:
    def denoise(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(x * 10, x)

    prediction = clamp_x0(denoise, 1.5)(X, T)
    assert torch.equal(prediction.x0, (X * 10).clamp(-1.5, 1.5))
    assert prediction.variance is X
    assert clamp_x0(denoise, None) is denoise


def test_map_x0_changes_x0_and_keeps_the_variance() -> None:
    denoise = map_x0(changing_denoiser(True), lambda x0: x0 + 1)
    x, t = torch.zeros(N, *SHAPE), torch.zeros(N, dtype=torch.int64)
    torch.testing.assert_close(denoise(x, t).x0, changing_denoiser(True)(x, t).x0 + 1)
    assert torch.equal(denoise(x, t).variance, torch.ones_like(x))


def test_an_observer_sees_each_x0_and_changes_nothing() -> None:
    seen: list[Tensor] = []
    denoise = observe_x0(lambda x, t: Prediction(2 * x, x), seen.append)
    x = torch.randn(2, 3)
    prediction = denoise(x, torch.tensor([1, 1]))
    assert torch.equal(prediction.x0, 2 * x) and prediction.variance is x
    assert len(seen) == 1 and torch.equal(seen[0], 2 * x)
