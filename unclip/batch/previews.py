"""Previews: the predicted images of each denoising step, as files."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.batch.file_names import slug
from unclip.batch.storage import disk_full
from unclip.inference.callbacks import Watcher
from unclip.system.files import make_new_folder, write_atomic

if TYPE_CHECKING:
    from PIL import Image


class Previews(Watcher):
    """Writes the images of every step into a new folder, as NUMBER-SEED-STEP-STAGE.png, and reports the steps.

    NUMBER counts everything that a decoder samples, in its order: images, candidates, context views and windows.
    """

    def __init__(self, folder: Path, progress: Callable[[str, int, int], None]) -> None:
        self._folder = folder
        self._progress = progress
        self._count = self._step = self._batch = 0
        self._first_stage = ""  # the first stage that has images: a new batch starts with it
        self._ended = True
        self._seeds: list[int] = []
        self._numbers: dict[tuple[int, int], int] = {}  # by seed, and the number of equal seeds before it in the batch

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._progress(stage, done, total)
        self._ended = self._ended if done == 0 else done == total  # a stage at 0 has no images yet

    def see(self, stage: str, images: "Sequence[Image.Image]", seeds: Sequence[int]) -> None:
        try:
            self._write(stage, images, list(seeds))
        except OSError as error:
            raise disk_full(error, self._folder) from error

    def _write(self, stage: str, images: "Sequence[Image.Image]", seeds: list[int]) -> None:
        if not self._first_stage:
            self._first_stage, self._folder = stage, make_new_folder(self._folder)
        other = self._seeds != seeds  # a batch that failed is sampled again in parts, before it has ended
        if (self._ended or other) and stage == self._first_stage:
            self._count, self._step, self._batch = self._count + self._batch, 0, len(images)
            for k, seed in enumerate(seeds):
                self._numbers[seed, seeds[:k].count(seed)] = self._count + 1 + k
        self._ended, self._seeds = False, seeds
        self._step += 1
        for k, (image, seed) in enumerate(zip(images, seeds, strict=True)):
            # Images that were decoded one by one may be upsampled as one batch.
            number = self._numbers.get((seed, seeds[:k].count(seed)), self._count + 1 + k)
            data = io.BytesIO()
            image.save(data, format="PNG")
            write_atomic(self._folder / f"{number:04d}-{seed}-{self._step:03d}-{slug(stage)}.png", data.getvalue())
