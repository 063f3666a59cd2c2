"""A model under evaluation: its prompts, and the images it generates for them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
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
from unclip.system.processes import ALONE, Processes

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

STEPS = (5, 10, 25, 50, 250)
BEST_OF = (1, 2, 4, 8, 16)
BATCH = 16  # images per batch by default

T = TypeVar("T")
R = TypeVar("R")

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
        processes: That share the work; all of them measure the same parts, and the main one writes the report.
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
    processes: Processes = ALONE

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
        return self.pipe.model.default_size[0]

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
        [missing, *_] = self.processes.gather(missing)
        requests = self.make_requests(self.prompts)

        def make(batch: slice) -> None:
            own = missing[batch]
            for i, result in zip(own, self._stream([requests[i] for i in own]), strict=True):
                result.save(self.image_path(i))

        self.share("images", self.slices(len(missing)), make)
        return LazyImages(lambda i: _read_image(self.image_path(i)), len(self.prompts))

    def make_requests(self, prompts: Prompts, **fields: Any) -> list[Request]:
        """Return a Request for each prompt, each with its own seed; `fields` are further fields of all."""
        return [Request(prompt=prompt, seed=self.seed + i, **fields) for i, (prompt, _) in enumerate(prompts)]

    def generate(self, label: str, requests: Sequence[Request]) -> list[Result]:
        """Return the results of requests, in order, and report progress under `label`."""
        # As many requests at a time as fill whole micro-batches, of which the processes thus make the same.
        size = BATCH if self.batch_size is None else self.batch_size
        count = max(1, math.lcm(size, requests[0].n) // requests[0].n) if requests else 1
        parts = [requests[start : start + count] for start in range(0, len(requests), count)]
        return [result for found in self.share(label, parts, lambda part: [*self._stream(part)]) for result in found]

    def _stream(self, requests: Sequence[Request]) -> Iterator[Result]:
        return self.pipe.stream(requests, batch_size=BATCH if self.batch_size is None else self.batch_size)

    def embed_images(self, label: str, images: Sequence[Image.Image]) -> Tensor:
        """Return the CLIP embeddings of images, `n d`, float32 on the CPU."""

        def embed(batch: slice) -> Tensor:
            return self.pipe.embed_image(images[batch]).float().cpu()

        return torch.cat(self.share(label, self.slices(len(images)), embed))

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Return the CLIP embeddings of prompts, `n d`, float32 on the CPU."""
        return self.pipe.model.encode_text(prompts).embed.float().cpu()

    def slices(self, count: int) -> list[slice]:
        """Return consecutive slices of `count` items, a batch each."""
        size = BATCH if self.batch_size is None else self.batch_size
        return [slice(start, min(count, start + size)) for start in range(0, count, size)]

    def share(self, label: str, items: Sequence[T], compute: Callable[[T], R]) -> list[R]:
        """Return what `compute` returns for each item, in order, and report progress under `label`.

        The processes of the run take turns with the items, and each gets all results.
        """
        return self.processes.share(items, compute, partial(self.track, label))

    def track(self, label: str, items: Sequence[T]) -> Iterator[T]:
        """Yield the items, and report progress under `label`."""
        for done, item in enumerate(items):
            self.progress(label, done, len(items))
            yield item
        self.progress(label, len(items), len(items))


def _read_image(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")
