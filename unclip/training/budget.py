"""How long to train: steps, minutes, or both."""

from dataclasses import dataclass


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Budget:
    """How long to train in all, resumed parts included: a number of steps, or minutes if they are given."""

    steps: int
    minutes: float | None = None

    def done(self, progress: Progress) -> float:
        """The share of the run that lies behind, 0 to 1."""
        if self.minutes is not None:
            return min(progress.seconds / (60 * self.minutes), 1.0)
        return min(progress.step / self.steps, 1.0)
