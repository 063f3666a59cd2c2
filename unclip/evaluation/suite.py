"""A model under examination: what is asked of it, and the pictures that it draws of that."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.evaluation.report import PICTURES, Report
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.stickers.captions import nouns_in
from unclip.stickers.prompts import KINDS, prompts
from unclip.stickers.render import render
from unclip.stickers.scene import Scene
from unclip.stickers.sprites import load_nouns

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

STEPS = (5, 10, 25, 50, 250)
BEST_OF = (1, 2, 4)
BATCH = 16  # pictures at a time, where nothing else is said

Progress = Callable[[str, int, int], None]
"""(what is done, how many of it are done, of how many)"""


class Pictures(Sequence):
    """So many pictures, each made or read when it is asked for, and not kept: thousands of them take no memory."""

    def __init__(self, get: Callable[[int], Image.Image], count: int):
        self._get, self._count = get, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self._get(i) for i in range(*place.indices(self._count))]
        if not 0 <= place < self._count:
            raise IndexError(place)
        return self._get(place)


@dataclass(frozen=True)
class Suite:
    """A loaded model, and what all parts of its evaluation go by.

    n: prompts of each kind (one object, two objects, a count). split: "held_out" asks for combinations that training
    never showed, "train" for those it did. steps: how many to try of each of the `samplers`, the last being more than
    enough. Image i is drawn with seed + i.
    """

    pipe: "Unclip"
    report: Report
    folder: Path
    n: int = 100
    seed: int = 0
    split: str = "held_out"
    steps: Sequence[int] = STEPS
    samplers: Sequence[str] = SAMPLER_NAMES
    batch_size: int | None = None
    progress: Progress = field(default=lambda *_: None)

    @cached_property
    def asked(self) -> list[tuple[str, Scene]]:
        """(prompt, scene), as many of each kind."""
        return prompts(len(KINDS) * self.n, self.seed, split=self.split, nouns=self.nouns)

    @cached_property
    def nouns(self) -> tuple[str, ...]:
        """Those that the model says it was trained on; all that there are, where it names none."""
        return nouns_in(self.pipe.vocabulary or ()) or tuple(load_nouns())

    @property
    def mixed(self) -> list[tuple[str, Scene]]:
        """The first n of them, of all kinds: for what needs many pictures of each."""
        return self.asked[: self.n]

    @property
    def small(self) -> int:
        """Width, in pixels, of the pictures that the decoder draws, and that CLIP and the prior are judged by."""
        return self.pipe.sizes[0][0]

    @property
    def large(self) -> int:
        """Width, in pixels, of the pictures that the model draws by default."""
        return self.pipe.sizes[-1][0]

    def real(self, asked: Sequence[tuple[str, Scene]], side: int) -> Pictures:
        """Renderings of scenes, `side` pixels wide."""
        return Pictures(lambda i: Image.fromarray(render(asked[i][1], side)), len(asked))

    def counted(self, label: str, items: Sequence) -> Iterator:
        """The items, with the progress told of each that is done with."""
        for done, item in enumerate(items):
            self.progress(label, done, len(items))
            yield item
        self.progress(label, len(items), len(items))

    def draw(self, label: str, requests: Sequence[Request]) -> Iterator[Result]:
        """The pictures of requests, in their order."""
        total = sum(request.n for request in requests)
        self.progress(label, 0, total)
        for done, result in enumerate(self.pipe.stream(requests, batch_size=self.batch_size), start=1):
            self.progress(label, done, total)
            yield result

    def embed(self, label: str, pictures: Sequence[Image.Image]) -> Tensor:
        """CLIP's embeddings of pictures, `n d`, float32 on the CPU."""
        size = self.batch_size or BATCH
        starts = self.counted(label, range(0, len(pictures), size))
        return torch.cat([self.pipe.embed_image(pictures[start : start + size]).float().cpu() for start in starts])

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """CLIP's embeddings of prompts, `n d`, float32 on the CPU."""
        return self.pipe.encode_text(prompts).embed.float().cpu()

    def requests(self, asked: Iterable[tuple[str, Scene]], **fields) -> list[Request]:
        """One a prompt, each with its own seed; `fields` are a Request's."""
        return [Request(prompt=prompt, seed=self.seed + i, **fields) for i, (prompt, _) in enumerate(asked)]

    @property
    def page(self) -> Path:
        """Where the page of the report lies."""
        return self.folder / "report.html"

    def picture(self, i: int) -> Path:
        """Where the picture of asked[i] lies."""
        return self.folder / PICTURES / f"{i:05d}.png"

    @cached_property
    def drawn(self) -> Pictures:
        """The pictures of all that is asked, at the model's defaults. They are kept, and not drawn twice."""
        missing = [i for i in range(len(self.asked)) if not self.picture(i).is_file()]
        requests = self.requests(self.asked)
        wanted = [replace(requests[i], id=str(i)) for i in missing]
        for result in self.draw("pictures", wanted):
            result.save(self.picture(int(result.request.id)))
        return Pictures(lambda i: _read(self.picture(i)), len(self.asked))


def _read(path: Path) -> Image.Image:
    with Image.open(path, formats=("PNG",)) as image:
        return image.convert("RGB")
