"""A model under evaluation: its prompts, and the images it generates for them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.sampler_names import FOR_ANY_MODEL
from unclip.evaluation.report import IMAGES, Report
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.stickers.captions import nouns_in
from unclip.stickers.prompts import KINDS, sample_prompts
from unclip.stickers.render import render
from unclip.stickers.scene import Scene
from unclip.stickers.sprites import DEFAULT_STYLE, load_nouns

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

STEPS = (5, 10, 25, 50, 250)
BEST_OF = (1, 2, 4, 8, 16)
BATCH = 16  # images per batch by default

T = TypeVar("T")

Prompts = Sequence[tuple[str, Scene]]
"""Prompts, and the scene that each describes."""

Progress = Callable[[str, int, int], None]
"""Called as (label, done, total)."""


class LazyImages(Sequence[Image.Image]):
    """A sequence of images, each made or read on access and not kept: thousands of them take no memory."""

    def __init__(self, load: Callable[[int], Image.Image], count: int):
        self._load, self._count = load, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Image.Image]: ...

    def __getitem__(self, index: int | slice) -> Image.Image | Sequence[Image.Image]:
        if isinstance(index, slice):
            return [self._load(i) for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._load(index)


@dataclass(frozen=True)
class Suite:
    """A loaded model and the settings that all parts of its evaluation share.

    Attributes:
        pipe: The model.
        report: The results so far.
        folder: The folder of the report and its images.
        n: Number of prompts of each kind (one object, two objects, a count).
        seed: Seed of the prompts; image i is generated with seed + i.
        split: "held_out" for combinations that training never used, "train" for those it did.
        steps: Numbers of steps to try of each sampler; the last is the reference.
        samplers: The samplers to try.
        batch_size: Images per batch; None for the default.
        progress: Called as (label, done, total).
    """

    pipe: "Unclip"
    report: Report
    folder: Path
    n: int = 100
    seed: int = 0
    split: str = "held_out"
    steps: Sequence[int] = STEPS
    samplers: Sequence[str] = FOR_ANY_MODEL
    batch_size: int | None = None
    progress: Progress = field(default=lambda *_: None)

    @cached_property
    def prompts(self) -> Prompts:
        """All prompts, n of each kind."""
        return sample_prompts(len(KINDS) * self.n, self.seed, split=self.split, nouns=self.nouns, styles=self.styles)

    @property
    def subset(self) -> Prompts:
        """The first n prompts, of all kinds: for parts that generate many images per prompt."""
        return self.prompts[: self.n]

    @cached_property
    def nouns(self) -> tuple[str, ...]:
        """The nouns that the model was trained on; all, if it has no vocabulary."""
        return nouns_in(self.pipe.model.vocabulary or ()) or tuple(load_nouns())

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles of sprites that the model was trained on."""
        return self.pipe.model.styles or (DEFAULT_STYLE,)

    @property
    def decoder_size(self) -> int:
        """Width in pixels of the decoder's images, the size at which CLIP and the prior are evaluated."""
        return self.pipe.model.sizes[0][0]

    @property
    def full_size(self) -> int:
        """Width in pixels of the images that the model generates by default."""
        return self.pipe.model.sizes[-1][0]

    @property
    def html_path(self) -> Path:
        """The path of the report's HTML page."""
        return self.folder / "report.html"

    def image_path(self, i: int) -> Path:
        """Return the path of the image generated for prompts[i]."""
        return self.folder / IMAGES / f"{i:05d}.png"

    def render(self, prompts: Prompts, size: int) -> LazyImages:
        """Return the renderings of the prompts' scenes, `size` pixels wide: the real images of an evaluation."""
        return LazyImages(lambda i: Image.fromarray(render(prompts[i][1], size)), len(prompts))

    @cached_property
    def generated(self) -> LazyImages:
        """The images of all prompts at the model's defaults. They are stored, and not generated twice."""
        missing = [i for i in range(len(self.prompts)) if not self.image_path(i).is_file()]
        requests = self.make_requests(self.prompts)
        results = self.generate("images", [requests[i] for i in missing])
        for i, result in zip(missing, results, strict=True):
            result.save(self.image_path(i))
        return LazyImages(lambda i: _read_image(self.image_path(i)), len(self.prompts))

    def make_requests(self, prompts: Prompts, **fields: Any) -> list[Request]:
        """Return a Request for each prompt, each with its own seed; `fields` are further fields of all."""
        return [Request(prompt=prompt, seed=self.seed + i, **fields) for i, (prompt, _) in enumerate(prompts)]

    def generate(self, label: str, requests: Sequence[Request]) -> Iterator[Result]:
        """Yield the results of requests, in order, and report progress under `label`."""
        total = sum(request.n for request in requests)
        self.progress(label, 0, total)
        for done, result in enumerate(self.pipe.stream(requests, batch_size=self.batch_size), start=1):
            self.progress(label, done, total)
            yield result

    def embed_images(self, label: str, images: Sequence[Image.Image]) -> Tensor:
        """Return the CLIP embeddings of images, `n d`, float32 on the CPU."""
        batches = self.batches(label, len(images))
        return torch.cat([self.pipe.embed_image(images[batch]).float().cpu() for batch in batches])

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Return the CLIP embeddings of prompts, `n d`, float32 on the CPU."""
        return self.pipe.model.encode_text(prompts).embed.float().cpu()

    def batches(self, label: str, count: int) -> Iterator[slice]:
        """Yield consecutive slices of `count` items, a batch each, and report progress under `label`."""
        size = BATCH if self.batch_size is None else self.batch_size
        for start in self.track(label, range(0, count, size)):
            yield slice(start, min(count, start + size))

    def track(self, label: str, items: Sequence[T]) -> Iterator[T]:
        """Yield the items, and report progress under `label`."""
        for done, item in enumerate(items):
            self.progress(label, done, len(items))
            yield item
        self.progress(label, len(items), len(items))


def _read_image(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")
