"""Text diffs: an image changed by the difference of two texts. Ramesh et al. 2022 (arXiv:2204.06125), section 3.3."""

from typing import Any

from torch import Tensor

from unclip.embeddings.algebra import slerp, text_diff
from unclip.inference.model import UnclipModel
from unclip.modes.base import Requirement, resolved
from unclip.modes.bipartite import BipartiteMode
from unclip.requests.fields import THETA
from unclip.requests.request import Request


class TextDiff(BipartiteMode):
    """Keeps the image's own noise and rotates its embedding by theta, towards a text difference or an embedding."""

    def decoder_prompt(self, request: Request) -> str:
        return ""  # the embedding carries the change; either text would contradict the frames between them

    def combine(self, model: UnclipModel, request: Request, embeds: Tensor) -> Tensor:
        theta = resolved(request.theta)
        if request.embedding is not None:
            target = model.encoder.read_embedding(request.embedding)  # d
            return slerp(embeds, target[None], theta)[0]
        new, old = model.encode_text([request.prompt, request.from_prompt or ""]).embed.chunk(2)
        return text_diff(embeds, new, old, theta)[0]

    def requirements(self, model: UnclipModel, request: Request) -> set[Requirement]:
        return super().requirements(model, request) | ({"text encoder"} if request.embedding is None else set())

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        theta = None if request.frames else THETA  # a sequence goes from 0 to theta
        return {**super().defaults(model, request), "theta": theta, "from_prompt": ""}
