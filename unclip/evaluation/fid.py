"""How far generated pictures are, as a set, from real ones: Frechet and kernel distance between their features.

Heusel et al. 2017 (arXiv:1706.08500); Binkowski et al. 2018 (arXiv:1801.01401), section 4. The features are the
embeddings of the model's own CLIP image tower, not of an Inception network, so the figures compare with each other
only: above all with the floor, the distance between two sets of real pictures of the same size.
"""

import warnings
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from unclip.errors import InputError
from unclip.evaluation.suite import Suite
from unclip.stickers.prompts import prompts

EXTRA = "torchmetrics"
SUBSETS = 50  # of half the pictures each, over which the kernel distance is averaged


class Features(nn.Module):
    """The feature extractor that torchmetrics is given for what has been extracted already: features `b d`."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def check_installed() -> None:
    """Raise InputError where torchmetrics is not installed."""
    if find_spec(EXTRA) is None:
        raise InputError(
            f"the part 'distance' needs {EXTRA}: pip install 'unclip[evaluate]', or name other parts with --only"
        )


def frechet(real: Tensor, drawn: Tensor) -> float:
    """The Frechet distance of the Gaussians that have the means and covariances of features `n d` and `m d`."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(Features(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(drawn.double(), real=False)
    return max(0.0, metric.compute().item())  # rounding may leave it a little below


def kernel(real: Tensor, drawn: Tensor, seed: int = 0) -> tuple[float, float]:
    """The squared maximum mean discrepancy of features `n d` and `m d` under the kernel (x y / d + 1)^3, unbiased.

    Its mean over random subsets of half the features, and their standard deviation. It may be negative.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = max(2, min(len(real), len(drawn)) // 2)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it draws subsets by the global generator
        warnings.simplefilter("ignore", UserWarning)  # that it keeps all features
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(Features(real.shape[1]), subsets=SUBSETS, subset_size=size)
        metric.update(real.double(), real=True)
        metric.update(drawn.double(), real=False)
        mean, deviation = metric.compute()
    return mean.item(), deviation.item()


def distance(suite: Suite) -> dict[str, Any]:
    """From a set of real renderings: of the pictures drawn, and as the floor of the real pictures of their prompts."""
    others = prompts(len(suite.asked), suite.seed + 1, split=suite.split, nouns=suite.nouns)
    sets = {
        "real": suite.real(others, suite.large),
        "drawn": suite.drawn,
        "floor": suite.real(suite.asked, suite.large),
    }
    real, drawn, floor = (suite.embed(f"features, {name}", pictures) for name, pictures in sets.items())
    rows = []
    for name, features in (("generated to real", drawn), ("real to real, the floor", floor)):
        mean, deviation = kernel(real, features, suite.seed)
        cells = {"Frechet": frechet(real, features), "kernel": mean, "kernel, deviation": deviation, "n": len(real)}
        rows.append({"": name, **cells})
    return {
        "rows": rows,
        "notes": ["on embeddings of the model's own CLIP image tower; kernel over halves of the sets"],
    }
