"""Stand-ins for a trained model, which generate images by a given function of the request."""

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
from unclip.inference.run_context import Run
from unclip.models.text import TextEncoding
from unclip.requests.request import Request
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.render import render
from unclip.stickers.scene import Scene

Generate = Callable[[Request], Image.Image]


def perfect_features(image: Image.Image) -> Tensor:
    """Return the features of a perfect CLIP: the image itself, shrunk."""
    return torch.tensor(np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BOX)).ravel() / 127.5 - 1)


class StandIn:
    """The parts of `Unclip` and its model that an evaluation uses, for a model of 64 px.

    Args:
        generate: Returns the image of a request.
        scenes: Prompt -> its scene.
        features: Returns the CLIP features of an image.
    """

    name, sizes, upsamplers, vocabulary, styles = "stand-in", [(64, 64)], (), None, ()
    encoder, device = SimpleNamespace(encodes_images=True), torch.device("cpu")
    speeds, noise_levels = {"balanced": {}, "fast": {}}, 0
    decoder = SimpleNamespace(sampler="ddim", steps=7, guidance=1.0, codec=SimpleNamespace(factor=4))

    def __init__(
        self,
        generate: Generate,
        scenes: Mapping[str, Scene],
        features: Callable[[Image.Image], Tensor] = perfect_features,
    ):
        self.generate, self.scenes, self.features = generate, scenes, features
        self.generated = 0

    def stream(self, requests: Sequence[Request], batch_size: int | None = None) -> Iterator[Result]:
        for request in (single for each in requests for single in each.images()):
            self.generated += 1
            image = self.generate(request)
            [score] = torch.cosine_similarity(
                self.embed_image([image]), self.encode_text([request.prompt]).embed
            ).tolist()
            yield Result(image=image, request=request, seed=request.seed, model=self.name, score=score)

    def embed_image(self, images: Sequence[Image.Image]) -> Tensor:
        return torch.stack([self.features(image) for image in images]).float()

    def encode_text(self, prompts: Sequence[str]) -> TextEncoding:
        nothing = torch.zeros(len(prompts), 1)
        if prompts[0] == "":
            return TextEncoding(*[nothing] * 4)
        embed = self.embed_image([Image.fromarray(render(self.scenes[prompt], 64)) for prompt in prompts])
        return TextEncoding(embed, nothing, nothing, nothing)

    @property
    def model(self) -> "StandIn":
        return self

    @property
    def default_size(self) -> tuple[int, int]:
        return self.sizes[-1]

    def resolve(self, request: Request) -> Request:
        return request

    def sample_prior(self, text: TextEncoding, negative: TextEncoding, run: Run) -> Tensor:
        assert len(run.generators) == len(text.embed) == len(negative.embed)
        return text.embed

    def require_prior(self, kind: str | None = None) -> Any:
        return self.priors["diffusion"]

    priors = {"diffusion": SimpleNamespace(defaults=dict)}  # the defaults of its fields are not used


def perfect_model(scenes: Mapping[str, Scene]) -> StandIn:
    """Return a model that renders the scene of every prompt."""
    return StandIn(lambda request: Image.fromarray(render(scenes[request.prompt], 64)), scenes)


def noise_image(request: Request) -> Image.Image:
    """Return noise, as of a model that has learned nothing."""
    pixels = np.random.default_rng(request.seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def blank_image(request: Request) -> Image.Image:
    """Return an image without objects."""
    return Image.new("RGB", (64, 64), (128, 0, 128))


def new_suite(folder: Path, model: Any, n: int = 2, **settings: Any) -> Suite:
    """Return a suite of n prompts per kind whose report is in a folder."""
    return Suite(model, Report(folder, {"n": n}), folder, n=n, **settings)


def suite_scenes(n: int = 2, seed: int = 0) -> dict[str, Scene]:
    """Return prompt -> scene of a suite of n prompts per kind."""
    return dict(sample_prompts(3 * n, seed))
