"""The events that a batch reports while it runs, and its totals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from unclip.batch.jobs import Job


@dataclass
class Totals:
    """The outcome of a run, in images. stopped: it was interrupted before its end."""

    made: int = 0
    skipped: int = 0
    failed: int = 0
    stopped: bool = False


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    images, done   images that the file asks for, and how many of them the folder has
    bad            lines that cannot be run
    sizes          images by size, {"256x256": 12}
    bytes          estimated size on disk of the images to make
    seconds        estimated duration, by the speed of the images in the folder; None if there are none
    """

    images: int
    done: int
    bad: int
    sizes: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float | None = None


class RunReport(Protocol):
    """Receives the events of a run as they happen."""

    def generating(self, jobs: Sequence[Job]) -> None:
        """These jobs are generated next."""

    def step(self, stage: str, done: int, total: int) -> None:
        """Denoising steps done in a stage, from 0."""

    def image(self, file: str, entry: Mapping[str, Any]) -> None:
        """An image is saved. entry: its line in the manifest."""

    def failure(self, job: Job, problem: str) -> None:
        """An image could not be generated."""

    def note(self, text: str) -> None:
        """A message about the run."""


class Report(RunReport, Protocol):
    """Receives the events of a whole session: the check of the prompt file, the run, its end."""

    def bad_line(self, fields: dict[str, Any], shown: bool) -> None:
        """A line cannot be run. shown: False after the first few bad lines; later ones are only counted."""

    def more_bad_lines(self, count: int, errors: str | None) -> None:
        """Further bad lines were counted only. errors: the file that lists them."""

    def say(self, text: str) -> None:
        """A line about the progress of the check."""

    def plan(self, plan: Plan) -> None:
        """The plan of a dry run."""

    def start(self, images: int, done: int, seed: int) -> None:
        """The run starts. images: to make; done: already there; seed: of the run."""

    def stopping(self) -> None:
        """The first interrupt: the current images are finished."""

    def resumable(self) -> None:
        """The run was stopped and can be resumed."""

    def grid(self, path: Path) -> None:
        """The contact sheet is written."""

    def end(self, totals: Totals, bad: int, errors: str) -> None:
        """The run is over. errors: the file that lists bad lines and failures."""

    def close(self) -> None:
        """Restore the terminal."""
