"""What the upsamplers add to bicubic enlargement: on real renderings, made small, and on the decoder's own pictures."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import make_generators
from unclip.evaluation.intervals import mean
from unclip.evaluation.suite import BATCH, Suite
from unclip.images.processing import to_tensor
from unclip.models.upsampler import enlarge


def psnr(pictures: Tensor, true: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures `b 3 h w` in [-1, 1], `b`; at most 100."""
    error = (pictures.clamp(-1, 1) - true.clamp(-1, 1)).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error.clamp(min=4e-10))


def sharpness(pictures: Tensor) -> Tensor:
    """The variance of the Laplacian of pictures `b 3 h w`, `b` (Pech-Pacheco et al. 2000): blur lowers it."""
    grey = pictures.clamp(-1, 1).mean(dim=1, keepdim=True)  # b 1 h w
    laplacian = grey.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(grey, laplacian).flatten(1).var(dim=1)


def shrink(pictures: Tensor, side: int) -> Tensor:
    """`b 3 h w` -> `b 3 side side` in [-1, 1], as upsamplers are trained on it: bicubic with antialiasing."""
    return enlarge(pictures, (side, side)).clamp(-1, 1)


def upsampler(suite: Suite) -> dict[str, Any]:
    """PSNR and sharpness against bicubic enlargement."""
    true = suite.real(suite.mixed, suite.large)
    decoded = [
        result.image
        for result in suite.draw("pictures to enlarge", suite.requests(suite.mixed, size=suite.pipe.sizes[0]))
    ]
    found: dict[tuple[str, str], list[Tensor]] = {}
    size = suite.batch_size or BATCH
    for start in suite.counted("upsampler", range(0, len(true), size)):
        real = torch.stack([to_tensor(image) for image in true[start : start + size]])  # b 3 H W
        inputs = {"real": shrink(real, suite.small), "decoded": _stacked(decoded[start : start + size])}
        seeds = [suite.seed + i for i in range(start, start + len(real))]
        for source, small in inputs.items():
            ways = {
                "upsampler": suite.pipe.upsample(small, make_generators(seeds)).float().cpu(),
                "bicubic": enlarge(small, suite.pipe.sizes[-1]),
            }
            for way, large in ways.items():
                known = psnr(large, real) if source == "real" else psnr(shrink(large, suite.small), small)
                sharp = sharpness(large) / sharpness(real).clamp(min=1e-12)
                found.setdefault((source, way), []).append(torch.stack([known, sharp]))  # 2 b
    rows = []
    for (source, way), parts in found.items():
        known, sharp = torch.cat(parts, dim=1).tolist()
        name = "PSNR to the real picture, dB" if source == "real" else "PSNR, made small again, dB"
        told = "real pictures, made small" if source == "real" else "the decoder's pictures"
        rows.append({"": f"{told}: {way}", name: mean(known), "sharpness, real = 1": mean(sharp)})
    return {
        "rows": rows,
        "notes": ["sharpness: variance of the Laplacian, over that of the real picture of the prompt"],
    }


def _stacked(images: Sequence[Image.Image]) -> Tensor:
    return torch.stack([to_tensor(image) for image in images])
