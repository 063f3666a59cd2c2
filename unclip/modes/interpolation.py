"""Interpolations between images, prompts and embeddings. Ramesh et al. 2022 (arXiv:2204.06125), section 3.2."""

from collections.abc import Sequence
from typing import Any

from unclip.inference.model import UnclipModel
from unclip.modes.bipartite import BipartiteMode
from unclip.requests.request import Request
from unclip.requests.sources import source_kind


class Interpolation(BipartiteMode):
    """Mixes the embeddings and the noise of two or more sources on the sphere."""

    def sources(self, request: Request) -> Sequence[Any]:
        return request.sources or ()

    def kind(self, source: Any) -> str:
        return source_kind(source)

    def weights(self, request: Request) -> Sequence[float]:
        return (1 - request.fraction, request.fraction) if request.weights is None else request.weights

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        middle = {"fraction": 0.5} if request.weights is None and request.frames is None else {}
        return {**super().defaults(model, request), **middle}
