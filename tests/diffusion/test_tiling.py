"""Windows of a larger image, denoised together."""

import pytest
import torch
from torch import Tensor

from unclip.diffusion.denoiser import Prediction
from unclip.diffusion.masking import keep_known
from unclip.diffusion.noise import make_generators, randn
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.diffusion.samplers import Sampling, sample
from unclip.diffusion.schedule import Schedule
from unclip.diffusion.tiling import Tiling, tiled

CORNERS = ((0, 0), (4, 0), (4, 4), (0, 4), (0, 8), (4, 8), (0, 12), (4, 12))
TILING = Tiling(height=12, width=20, side=8, corners=CORNERS, rows=(0,) * 8)
SHAPE = (3, 12, 20)


def test_cut_windows_assemble_to_the_original() -> None:
    x = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    windows = TILING.cut(x)
    assert windows.shape == (8, 3, 8, 8)
    assert torch.equal(windows[4], x[0, :, :8, 8:16])
    assert torch.equal(TILING.cut(x, slice(3, 5)), windows[3:5])
    assert torch.equal(TILING.assemble(windows, 0.0), x)
    fine = x.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.equal(TILING.cut(fine), windows.repeat_interleave(4, -1).repeat_interleave(4, -2))
    assert torch.equal(TILING.assemble(TILING.cut(fine), 0.0), fine)
    one = Tiling(12, 20, 8, ((4, 12),), (0,)).assemble(torch.ones(1, 1, 8, 8), 7.0)
    assert (one[..., 4:, 12:] == 1).all() and (one == 7).sum() == 12 * 20 - 64


def test_overlapping_windows_are_blended() -> None:
    tiling = Tiling(8, 12, 8, ((0, 0), (0, 4)), (0, 0))

    def by_place(x: Tensor, t: Tensor) -> Prediction:  # 0 in the first, 1 in the second
        return Prediction(torch.arange(2.0).view(2, 1, 1, 1).expand_as(x), 2 * torch.ones_like(x))

    prediction = tiled(lambda some: by_place, tiling, 2)(torch.zeros(1, 3, 8, 12), torch.tensor([500]))
    row = prediction.x0[0, 0, 0]
    assert (row[:4] == 0).all() and (row[8:] == 1).all()
    torch.testing.assert_close(row[4:8], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.testing.assert_close(prediction.variance, torch.full((1, 3, 8, 12), 2.0))


def test_windows_are_denoised_in_chunks() -> None:
    calls: list[tuple[int, list[int]]] = []

    def denoise_some(some: slice):
        def denoise(x: Tensor, t: Tensor) -> Prediction:
            calls.append((len(x), t.tolist()))
            return Prediction(torch.full_like(x, some.start))

        return denoise

    x0 = tiled(denoise_some, TILING, 3)(torch.zeros(1, *SHAPE), torch.tensor([40])).x0
    assert calls == [(3, [40] * 3), (3, [40] * 3), (2, [40] * 2)]
    assert x0[0, 0, 0, 0] == 0 and x0[0, 0, -1, -1] == 6


def test_x0_is_zero_outside_all_windows() -> None:
    one = Tiling(12, 20, 8, ((0, 0),), (0,))
    prediction = tiled(lambda some: lambda x, t: Prediction(x + 1), one, 1)(torch.zeros(1, *SHAPE), torch.tensor([40]))
    assert (prediction.x0[..., :8, :8] == 1).all() and prediction.x0.sum() == 3 * 64


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_sampling_by_windows_equals_sampling_at_once(sampler: str, repeats: int, ideal) -> None:
    """Of a Gaussian whose numbers do not depend on each other the mean at each place is exact, also by windows."""
    schedule = Schedule()
    gaussian = ideal.gaussian(0.3, 0.5)
    image, known = torch.full(SHAPE, -0.7)[None], torch.zeros(1, 1, 12, 20)
    known[..., :6] = 1

    def whole(x: Tensor, t: Tensor) -> Prediction:
        return Prediction(gaussian(x.flatten(1), t).x0.view_as(x))

    def run(denoise) -> Tensor:
        g = make_generators([3])
        x = randn(SHAPE, g)
        return sample(keep_known(denoise, image, known), x, schedule, Sampling(sampler, 10, repeats), g)

    by_windows = run(tiled(lambda some: whole, TILING, 3))
    torch.testing.assert_close(by_windows, run(whole), rtol=0, atol=1e-4)
    assert torch.equal(by_windows[..., :6], image[..., :6])
