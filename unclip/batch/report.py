"""What a batch reports as it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from unclip.batch.jobs import Job

if TYPE_CHECKING:
    from unclip.images.result import Result


class Report(Protocol):
    """Who is told what happens, as it happens."""

    def drawing(self, jobs: Sequence[Job]) -> None:
        """These are drawn next."""

    def step(self, stage: str, done: int, total: int) -> None:
        """So many denoising steps of a stage are done, at first 0."""

    def image(self, file: str, result: Result) -> None:
        """An image is on the disk."""

    def failure(self, job: Job, problem: str) -> None:
        """An image could not be drawn."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


@dataclass
class Totals:
    """How many images were made, were there already, and failed; whether the run was stopped before its end."""

    made: int = 0
    skipped: int = 0
    failed: int = 0
    stopped: bool = False
