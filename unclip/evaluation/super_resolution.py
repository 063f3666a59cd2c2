"""The gain of the upsamplers over bicubic enlargement: on shrunken renderings, and on the decoder's own images."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unclip.diffusion.noise import make_generators
from unclip.evaluation.intervals import estimate_mean
from unclip.evaluation.suite import Suite
from unclip.images.processing import to_tensor
from unclip.inference.run_context import Run
from unclip.models.upsampler import enlarge


def psnr(images: Tensor, true: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratios, `b`, in dB and at most 100, of images `b 3 h w` in [-1, 1]."""
    error = (images.clamp(-1, 1) - true.clamp(-1, 1)).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(4 / error.clamp(min=4e-10))


def sharpness(images: Tensor) -> Tensor:
    """Return the variances of the Laplacian, `b`, of images `b 3 h w`; blur lowers them (Pech-Pacheco et al. 2000)."""
    grey = images.clamp(-1, 1).mean(dim=1, keepdim=True)  # b 1 h w
    laplacian = grey.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(grey, laplacian).flatten(1).var(dim=1)


def shrink(images: Tensor, size: int) -> Tensor:
    """Return `b 3 h w` as `b 3 size size` in [-1, 1], by antialiased bicubic resizing as in upsampler training."""
    return enlarge(images, (size, size)).clamp(-1, 1)


def measure_upsampler(suite: Suite) -> dict[str, Any]:
    """Return PSNR and sharpness of the upsampler and of bicubic enlargement."""
    model = suite.pipe.model
    true = suite.render(suite.subset, suite.full_size)
    requests = suite.make_requests(suite.subset, size=model.sizes[0])
    decoded = [result.image for result in suite.generate("images to enlarge", requests)]

    def measure(batch: slice) -> dict[tuple[str, str], Tensor]:
        measured = {}
        real = _to_tensors(true[batch])  # b 3 H W
        inputs = {"real": shrink(real, suite.decoder_size), "decoded": _to_tensors(decoded[batch])}
        seeds = [suite.seed + i for i in range(batch.start, batch.stop)]
        for source, small in inputs.items():
            enlarged = {
                "upsampler": model.upsample(small, Run(make_generators(seeds), model.device)).float().cpu(),
                "bicubic": enlarge(small, model.default_size),
            }
            for method, large in enlarged.items():
                fidelity = psnr(large, real) if source == "real" else psnr(shrink(large, suite.decoder_size), small)
                relative = sharpness(large) / sharpness(real).clamp(min=1e-12)
                measured[source, method] = torch.stack([fidelity, relative])  # 2 b
        return measured

    parts = suite.share("upsampler", suite.slices(len(true)), measure)
    rows = []
    for source, method in parts[0]:
        fidelity, relative = torch.cat([part[source, method] for part in parts], dim=1).tolist()
        column = "PSNR to the real image, dB" if source == "real" else "PSNR after shrinking again, dB"
        label = "shrunken real images" if source == "real" else "the decoder's images"
        cells = {column: estimate_mean(fidelity), "sharpness, real = 1": estimate_mean(relative)}
        rows.append({"": f"{label}: {method}", **cells})
    return {
        "rows": rows,
        "notes": ["sharpness: variance of the Laplacian, relative to the real image of the prompt"],
    }


def _to_tensors(images: Sequence[Image.Image]) -> Tensor:
    return torch.stack([to_tensor(image) for image in images])
