"""Write the intermediate images of each denoising step."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unclip.batch.file_names import slug
from unclip.batch.output_folder import disk_full
from unclip.inference.callbacks import Watcher
from unclip.system.files import new_folder, write_atomic

if TYPE_CHECKING:
    from PIL import Image


class Previews(Watcher):
    """Draws `progress`, and writes the pictures of every step into a new folder: PICTURE-SEED-STEP-STAGE.png.

    PICTURE counts what a decoder draws, in its order: images, candidates, the views of an edit and what follows them.
    """

    def __init__(self, folder: Path, progress: Callable[[str, int, int], None]) -> None:
        self._folder = folder
        self._progress = progress
        self._drawn = self._step = self._together = 0
        self._stage = ""  # the first that has pictures
        self._ended = True
        self._seeds: list[int] = []
        self._numbers: dict[tuple[int, int], int] = {}  # by seed, and how many of a batch have it before

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._progress(stage, done, total)
        self._ended = self._ended if done == 0 else done == total  # at 0 what begins has no pictures yet

    def see(self, stage: str, images: "Sequence[Image.Image]", seeds: Sequence[int]) -> None:
        try:
            self._write(stage, images, list(seeds))
        except OSError as error:
            raise disk_full(error, self._folder) from error

    def _write(self, stage: str, images: "Sequence[Image.Image]", seeds: list[int]) -> None:
        if not self._stage:
            self._stage, self._folder = stage, new_folder(self._folder)
        other = self._seeds != seeds  # what failed is drawn again, in parts, before it has ended
        if (self._ended or other) and stage == self._stage:  # the next pictures
            self._drawn, self._step, self._together = self._drawn + self._together, 0, len(images)
            for k, seed in enumerate(seeds):
                self._numbers[seed, seeds[:k].count(seed)] = self._drawn + 1 + k
        self._ended, self._seeds = False, seeds
        self._step += 1
        for k, (image, seed) in enumerate(zip(images, seeds, strict=True)):
            # What was drawn one by one may be enlarged together.
            number = self._numbers.get((seed, seeds[:k].count(seed)), self._drawn + 1 + k)
            data = io.BytesIO()
            image.save(data, format="PNG")
            write_atomic(self._folder / f"{number:04d}-{seed}-{self._step:03d}-{slug(stage)}.png", data.getvalue())
