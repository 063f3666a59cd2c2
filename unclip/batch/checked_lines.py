"""The lines of a prompt file or a sweep, checked without the model and by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from unclip.batch.jobs import Settings, Task, check_rows
from unclip.batch.prompt_file import PromptFile, Span
from unclip.batch.row import BadLine
from unclip.batch.sweep import Sweep
from unclip.errors import InputError
from unclip.images.inputs import check_inputs
from unclip.requests.request import Request

if TYPE_CHECKING:
    from unclip.pipeline import Unclip


def output_size(pipe: Unclip, request: Request) -> tuple[int, int] | None:
    """(width, height) of the images of a request; None if its input cannot be read, an error that the run reports."""
    try:
        return pipe.output_size(request)
    except InputError:
        return None


def readable_lines(
    prompts: PromptFile | Sweep, settings: Settings, skip: Sequence[Span] = ()
) -> Iterator[Task | BadLine]:
    """The lines; a BadLine in place of each bad one, and of each whose input files cannot be read."""
    rows = prompts.rows(skip) if isinstance(prompts, PromptFile) else prompts.rows()
    for line in check_rows(rows, settings):
        if isinstance(line, Task):
            try:
                check_inputs(line.request)
            except InputError as error:
                line = BadLine.of(line.row.line, line.row.index, error)
        yield line


def checked_lines(
    prompts: PromptFile | Sweep, settings: Settings, pipe: Unclip, skip: Sequence[Span] = ()
) -> Iterator[tuple[Task, InputError | None]]:
    """The good lines, each with the reason for which the model refuses it, or None."""
    for line in readable_lines(prompts, settings, skip):
        if isinstance(line, BadLine):
            continue
        try:
            pipe.check(line.request)
        except InputError as error:
            yield line, error
        else:
            yield line, None
