"""Models that stand in for a trained one, and draw what a function of the request says."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unclip.evaluation.report import Report
from unclip.evaluation.suite import Suite
from unclip.images.result import Result
from unclip.models.text import TextEncoding
from unclip.requests.request import Request
from unclip.stickers.prompts import prompts
from unclip.stickers.render import render
from unclip.stickers.scene import Scene

Paint = Callable[[Request], Image.Image]


def features(image: Image.Image) -> Tensor:
    """What a perfect CLIP tells of a picture: the picture itself, made small."""
    return torch.tensor(np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX)).ravel() / 127.5 - 1)


class StandIn:
    """The public methods of `Unclip` that an evaluation uses, of a model that draws 64 px."""

    name, sizes, upsamplers, vocabulary = "stand-in", [(64, 64)], (), None
    clip = SimpleNamespace(visual=torch.nn.Identity())

    def __init__(self, paint: Paint, scenes: Mapping[str, Scene], look: Callable[[Image.Image], Tensor] = features):
        self.paint, self.scenes, self.look = paint, scenes, look
        self.drawn = 0

    def stream(self, requests: Sequence[Request], batch_size: int | None = None) -> Iterator[Result]:
        for request in (one for several in requests for one in several.images()):
            self.drawn += 1
            image = self.paint(request)
            [score] = torch.cosine_similarity(
                self.embed_image([image]), self.encode_text([request.prompt]).embed
            ).tolist()
            yield Result(image=image, request=request, seed=request.seed, model=self.name, score=score)

    def embed_image(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([self.look(image) for image in images]).float()

    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        nothing = torch.zeros(len(prompts), 1)
        if prompts[0] == "":
            return TextEncoding(*[nothing] * 4)
        embed = self.embed_image([Image.fromarray(render(self.scenes[prompt], 64)) for prompt in prompts])
        return TextEncoding(embed, nothing, nothing, nothing)

    def defaults(self) -> dict[str, Any]:
        return {"sampler": "ddim", "steps": 7}

    def resolve(self, request: Request) -> Request:
        return request

    def imagine(self, text: TextEncoding, negative: TextEncoding, noise: Any, request: Request) -> Tensor:
        assert len(noise) == len(text.embed) == len(negative.embed)
        return text.embed

    def check_prior(self) -> None:
        pass


def renderer(scenes: Mapping[str, Scene]) -> StandIn:
    """A perfect model."""
    return StandIn(lambda request: Image.fromarray(render(scenes[request.prompt], 64)), scenes)


def noise(request: Request) -> Image.Image:
    """What a model draws that has learned nothing."""
    pixels = np.random.default_rng(request.seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def blank(request: Request) -> Image.Image:
    """A picture of nothing."""
    return Image.new("RGB", (64, 64), (128, 0, 128))


def suite(folder: Path, model: Any, n: int = 2, **settings: Any) -> Suite:
    return Suite(model, Report(folder, {"n": n}), folder, n=n, **settings)


def asked(n: int = 2, seed: int = 0) -> dict[str, Scene]:
    """What a suite of n prompts a kind asks."""
    return dict(prompts(3 * n, seed))
