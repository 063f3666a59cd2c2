"""Reconstructions: an image from its embedding and its noise, or from some principal components of its embedding.

Ramesh et al. 2022 (arXiv:2204.06125), figure 7 and section 5.
"""

from torch import Tensor

from unclip.inference.model import UnclipModel
from unclip.modes.bipartite import BipartiteMode
from unclip.requests.request import Request


class Reconstruction(BipartiteMode):
    """Shows how much of an image the model keeps."""

    def combine(self, model: UnclipModel, request: Request, embeds: Tensor) -> Tensor:
        if request.components is None:
            return embeds[0]
        return model.components().project(embeds, request.components[0])[0]

    def check(self, model: UnclipModel, request: Request) -> None:
        if request.components is not None:
            model.components().check(max(request.components))
        super().check(model, request)
