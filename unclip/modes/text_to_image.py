"""Text to image: text -> CLIP image embedding -> small image -> large image.

Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents" (arXiv:2204.06125), section 2.
"""

from collections.abc import Sequence
from typing import Any

from unclip.inference.model import UnclipModel
from unclip.inference.run_context import Run
from unclip.modes.base import Output, Requirement, make_conditioning, read_embeddings, score_and_convert
from unclip.requests.request import Request


class TextToImage:
    """Generates an image from a prompt, or from a given embedding."""

    def generate(self, model: UnclipModel, requests: Sequence[Request], run: Run) -> list[Output]:
        prompts = [request.prompt for request in requests]
        given = read_embeddings(model, [request.embedding for request in requests])
        with run.stage("text"):
            text = model.encode_text(prompts)  # b d, b n d
            negative = model.encode_text([request.negative_prompt for request in requests])
        conditioning = make_conditioning(model, given, text, negative, run)  # embed: b d
        small = model.decode(conditioning, run)  # b 3 64 64
        large = model.upsample(small, run)  # b 3 256 256
        return score_and_convert(model, large, prompts, conditioning)

    def defaults(self, model: UnclipModel, request: Request) -> dict[str, Any]:
        return {}  # the model's own

    def requirements(self, model: UnclipModel, request: Request) -> set[Requirement]:
        return {"prior"} if request.embedding is None else set()

    def check(self, model: UnclipModel, request: Request) -> None:
        pass  # no images to open
