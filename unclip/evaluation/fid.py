"""The distance of generated images, as a set, from real ones: Frechet and kernel distance of their features.

Heusel et al. 2017 (arXiv:1706.08500); Binkowski et al. 2018 (arXiv:1801.01401), section 4. The features are the
embeddings of the model's own CLIP image encoder, not an Inception network's. The values are therefore comparable
with each other only: above all with the floor, the distance of two sets of real images of the same size.
"""

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import InputError
from unclip.evaluation.suite import Suite
from unclip.stickers.prompts import sample_prompts

EXTRA = "torchmetrics"
SUBSETS = 50  # random subsets, of half the images each, over which the kernel distance is averaged


class Features(nn.Module):
    """The feature extractor for torchmetrics: returns its input, since the features `b d` are extracted beforehand."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def check_installed(part: str = "distance") -> None:
    """Raise InputError if torchmetrics is not installed. part: of the evaluation, which needs it."""
    if find_spec(EXTRA) is None:
        raise InputError(
            f"the part {part!r} needs {EXTRA}: pip install 'unclip[evaluate]', or name other parts with --only"
        )


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Return the Frechet distance of two Gaussians, fitted to features `n d` and `m d`."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(Features(real.shape[1]), sync_on_compute=False)  # each process has all
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return max(0.0, metric.compute().item())  # rounding can make it slightly negative


def kernel_distance(real: Tensor, generated: Tensor, seed: int = 0) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of features `n d` and `m d` under the kernel (x y / d + 1)^3.

    It is the mean, and the standard deviation, of the unbiased estimate over random subsets of half the features. The
    mean can be negative.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = max(2, min(len(real), len(generated)) // 2)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it chooses subsets by the global generator
        warnings.simplefilter("ignore", UserWarning)  # about the memory of all features
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(
            Features(real.shape[1]), subsets=SUBSETS, subset_size=size, sync_on_compute=False
        )
        metric.update(real.double(), real=True)
        metric.update(generated.double(), real=False)
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()


def measure_distance(suite: Suite) -> dict[str, Any]:
    """Return the distances of the generated images, and of renderings of their prompts, from other renderings."""
    others = sample_prompts(len(suite.prompts), suite.seed + 1, split=suite.split, nouns=suite.nouns)
    real = suite.embed_images("features, real", suite.render(others, suite.full_size))
    generated = suite.embed_images("features, generated", suite.generated)
    floor = suite.embed_images("features, floor", suite.render(suite.prompts, suite.full_size))
    rows = []
    for name, features in (("generated to real", generated), ("real to real, the floor", floor)):
        mean, deviation = kernel_distance(real, features, suite.seed)
        frechet = frechet_distance(real, features)
        rows.append({"": name, "Frechet": frechet, "kernel": mean, "kernel, deviation": deviation, "n": len(real)})
    return {
        "rows": rows,
        "notes": ["on embeddings of the model's own CLIP image encoder; kernel over halves of the sets"],
    }
