"""The length of a training run, and the part of it that is done."""

from dataclasses import dataclass
from typing import Any


@dataclass
class Progress:
    """The steps and the seconds of a run so far, resumed parts included.

    scaler: the state of the loss's scale, in float16.
    """

    step: int = 0
    seconds: float = 0.0
    scaler: dict[str, Any] | None = None


@dataclass(frozen=True)
class Budget:
    """The total length of a run, resumed parts included: `minutes` if given, else `steps`."""

    steps: int
    minutes: float | None = None

    def fraction_done(self, progress: Progress) -> float:
        """The fraction of the run that is done, 0 .. 1."""
        if self.minutes is not None:
            return min(progress.seconds / (60 * self.minutes), 1.0)
        return min(progress.step / self.steps, 1.0)
