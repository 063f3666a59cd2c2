"""How a caller follows a run: told of each step, or shown its pictures too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Progress = Callable[[str, int, int], None]
"""(stage, done, total): called before the first denoising step of a stage, with 0, and after each."""


class Watcher:
    """A Progress that is shown the pictures as well, as they come out of the noise. Subclass it to look at them."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As a Progress; of a step it is told after `see`."""

    def see(self, stage: str, images: Sequence[Image.Image], seeds: Sequence[int]) -> None:
        """The clean pictures that a step of the decoder, or of an upsampler, predicts, and the seed of each."""
