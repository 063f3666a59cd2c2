"""Principal components of CLIP image embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from unclip.errors import RequestError


@dataclass(frozen=True)
class Components:
    """What the embeddings of many pictures are made of. mean: `d`; axes: `k d`, orthonormal, widest spread first."""

    mean: Tensor
    axes: Tensor

    def check(self, count: int) -> None:
        """Raise RequestError for more components than there are."""
        if count > len(self.axes):
            raise RequestError(f"components {count} are more than the {len(self.axes)} of this model: give fewer")

    def project(self, embed: Tensor, count: int) -> Tensor:
        """Embeddings `b d` from the mean and their first `count` components alone (Ramesh et al. 2022, figure 7)."""
        self.check(count)
        axes = self.axes[:count].to(embed)
        mean = self.mean.to(embed)
        return mean + (embed - mean) @ axes.T @ axes


def principal_components(batches: Iterable[Tensor]) -> Components:
    """The principal components of embeddings, which come in batches `b d`; at most as many as there are embeddings."""
    count, total, square = 0, 0.0, 0.0
    for batch in batches:
        wide = batch.double().cpu()
        count, total, square = count + len(wide), total + wide.sum(0), square + wide.T @ wide
    mean = total / count
    _, axes = torch.linalg.eigh(square / count - torch.outer(mean, mean))  # columns, the narrowest spread first
    return Components(mean.float(), axes.T.flip(0)[: max(1, count - 1)].float().contiguous())
