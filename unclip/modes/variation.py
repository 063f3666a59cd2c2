"""Variations: other images with the CLIP embedding of an image. Ramesh et al. 2022 (arXiv:2204.06125), section 3.1."""

from typing import Any

from unclip.inference.model import UnclipModel
from unclip.modes.bipartite import BipartiteMode
from unclip.requests.request import Request


class Variation(BipartiteMode):
    """Keeps the embedding. At strength 1 the noise is new; below, it is the image's own, renewed in part."""

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        return {**super().defaults(model, request), "strength": 1.0}

    def eta(self, request: Request) -> float:
        return (request.strength or 0.0) if request.inverts else 0.0
