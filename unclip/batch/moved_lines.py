"""Find the images of lines that have moved in their file, so that they are not generated again.

A job is known by its place in the file (`jobs.job_key`). Where lines were inserted, removed or sorted, an image that no
job asks for any more belongs to a job with the same content (`jobs.content_key`), wherever its line is now.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from unclip.batch.jobs import Job, Settings, Task, check_rows
from unclip.batch.output_folder import Folder
from unclip.batch.prompt_file import PromptFile
from unclip.batch.sweep import Sweep


@dataclass(frozen=True)
class Moved:
    """Images of lines that have moved: by the key in the manifest, the fields that change in its line.

    unused: further images of the file that none of its lines asks for.
    """

    lines: dict[str, dict[str, Any]]
    unused: int


def find_moved(prompts: PromptFile | Sweep, settings: Settings, folder: Folder) -> Moved:
    """The finished images of lines that have moved. Reads the prompt file, twice if there are any."""
    claimed = bytearray(folder.done)
    for job in _jobs(prompts, replace(settings, shard=(1, 1))):  # the images of other shards are not free
        place = folder.place(job.key)
        if place is not None:
            claimed[place] = 1
    free: dict[str, deque[str]] = {}  # content -> keys
    count = 0
    for entry in folder.entries():
        place = folder.place(int(entry.key, 16))
        if place is None or claimed[place] or entry.source not in (None, source_name(prompts.name)):
            continue
        claimed[place] = 1  # a key that is listed twice counts once
        count += 1
        if entry.content is not None:
            free.setdefault(entry.content, deque()).append(entry.key)
    lines: dict[str, dict[str, Any]] = {}
    if free:
        for job in _jobs(prompts, settings):
            keys = free.get(f"{job.content:016x}")
            if keys and not folder.is_done(job.key):
                place_of = {"line": job.row.line, "index": job.row.index, "columns": job.row.columns}
                lines[keys.popleft()] = {**place_of, "key": f"{job.key:016x}"}
    return Moved(lines, count - len(lines))


def source_name(prompts: str) -> str:
    """The name of a prompt file in manifests, the same from every working folder."""
    return PurePath(prompts).name


def _jobs(prompts: PromptFile | Sweep, settings: Settings) -> Iterator[Job]:
    for line in check_rows(prompts.rows(), settings):
        if isinstance(line, Task):
            yield from line.jobs()
