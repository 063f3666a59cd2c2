"""Callbacks: functions that receive the progress and the images of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Progress = Callable[[str, int, int], None]
"""(stage, done, total): called with 0 before the first denoising step of a stage, and after each step."""


class Watcher:
    """A Progress that also receives the predicted images of each step. Subclass it and override its methods."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Called like a Progress; at each step, `see` is called first."""

    def see(self, stage: str, images: Sequence[Image.Image], seeds: Sequence[int]) -> None:
        """Receives the images predicted at a step of the decoder or an upsampler, with their seeds."""


@dataclass(frozen=True)
class StageReport:
    """The callbacks of one stage.

    progress: (done, total), called with 0 before the first step and after each step.
    observe: called with the predicted x0 of each step, `b 3 H W` in [-1, 1], or `b d`.
    """

    progress: Callable[[int, int], None] | None = None
    observe: Callable[[Tensor], None] | None = None
