"""Principal components of CLIP image embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.errors import RequestError


@dataclass(frozen=True)
class Components:
    """Principal components of image embeddings.

    mean: `d`. axes: `k d`, orthonormal, largest variance first. variances: along each axis, `k`, if they are known.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor | None = None

    def check(self, count: int) -> None:
        """Raise RequestError for a count above the number of components."""
        if count > len(self.axes):
            raise RequestError(f"components {count} are more than the {len(self.axes)} of this model: give fewer")

    def count_holding(self, fraction: float) -> int:
        """The fewest components that hold this fraction of the variance along all of them, 0 .. 1; at least one."""
        assert self.variances is not None, "these components were read from a file without their variances"
        summed = self.variances.double().clamp(min=0).cumsum(0)
        return min(int((summed < fraction * summed[-1]).sum()) + 1, len(summed))

    def project(self, embed: Tensor, count: int) -> Tensor:
        """Embeddings `b d` reduced to the mean and their first `count` components (Ramesh et al. 2022, figure 7)."""
        self.check(count)
        axes = self.axes[:count].to(embed)
        mean = self.mean.to(embed)
        return mean + (embed - mean) @ axes.T @ axes


def principal_components(batches: Iterable[Tensor]) -> Components:
    """The principal components of embeddings in batches `b d`; at most one fewer than there are embeddings."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        precise = batch.double().cpu()
        count, total, square = count + len(precise), total + precise.sum(0), square + precise.T @ precise
    mean = total / count
    # Columns, smallest variance first.
    variances, axes = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    kept = max(1, count - 1)
    return Components(
        mean.float(), axes.T.flip(0)[:kept].float().contiguous(), variances.flip(0)[:kept].float().contiguous()
    )
