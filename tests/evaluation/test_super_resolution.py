"""Measures of upsamplers."""

from pathlib import Path

import pytest
import torch

from tests.evaluation.stand_ins import new_suite, perfect_model, suite_scenes
from unclip.diffusion.noise import make_generators
from unclip.evaluation.super_resolution import measure_upsampler, psnr, sharpness, shrink
from unclip.inference.run_context import Run
from unclip.models.upsampler import enlarge
from unclip.pipeline import Unclip


def test_psnr_in_closed_form() -> None:
    true = torch.zeros(2, 3, 8, 8)
    off = torch.stack([true[0] + 0.2, true[1]])  # a tenth of the range: 20 dB
    assert psnr(off, true).tolist() == pytest.approx([20, 100], abs=1e-3)


def test_blur_lowers_sharpness() -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16) // 4 % 2) % 2 * 2.0 - 1
    image = board.expand(1, 3, 16, 16)
    blurred = torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    assert 0 < sharpness(blurred) < sharpness(image)
    assert sharpness(torch.full((1, 3, 8, 8), 0.3)) == 0
    assert sharpness(board.expand(1, 3, 16, 16) * 0.5) == pytest.approx(sharpness(image).item() / 4)


def test_a_bicubic_upsampler_scores_as_bicubic(tmp_path: Path) -> None:
    model = perfect_model(suite_scenes())
    model.sizes = [(64, 64), (128, 128)]
    model.upsample = lambda small, noise: enlarge(small, (128, 128))
    rows = {row.pop(""): row for row in measure_upsampler(new_suite(tmp_path, model, n=2))["rows"]}
    for source in ("shrunken real images", "the decoder's images"):
        assert rows[f"{source}: upsampler"] == rows[f"{source}: bicubic"]
    real = rows["shrunken real images: bicubic"]
    assert 20 < real["PSNR to the real image, dB"]["mean"] < 40 and real["sharpness, real = 1"]["mean"] < 0.5
    assert rows["the decoder's images: bicubic"]["PSNR after shrinking again, dB"]["mean"] > 30


def test_upsampling_does_not_depend_on_the_batch(tiny: Unclip) -> None:
    small = shrink(torch.randn(2, 3, 64, 64).clamp(-1, 1), 16)
    assert small.shape == (2, 3, 16, 16) and small.abs().max() <= 1
    model = tiny.model

    def upsample(images, seeds):
        return model.upsample(images, Run(make_generators(seeds), model.device))

    large = upsample(small, [3, 4])
    assert large.shape == (2, 3, 32, 32)
    assert torch.allclose(upsample(small[1:], [4]), large[1:], atol=1e-4)
    assert not torch.allclose(upsample(small[1:], [5]), large[1:], atol=1e-2)
