"""Rows -> Tasks, each a line that was checked -> Jobs, each one image."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unclip.batch import wildcards
from unclip.batch.file_names import NameTemplate, title
from unclip.batch.row import BadLine, Row
from unclip.errors import RequestError
from unclip.requests.fields import CANVAS_MODES, FILE_FIELDS, MODES, SIDES, foreign_fields
from unclip.requests.request import Request
from unclip.requests.sources import source_kind
from unclip.requests.values import size_text


@dataclass(frozen=True)
class Job:
    """One image of a file.

    request   of this image alone: n = 1, its own seed and prompt; what the model decides may be open still
    row       the line it comes from
    image     its place among the images of its line, from 0
    key       tells it from every other image that one folder may get, now and when the same file is run again
    """

    request: Request
    row: Row
    image: int
    key: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for a whole file.

    seed          a line without a seed gets one that this and its index decide
    defaults      fields for lines that leave them open
    folder        what the paths of the file are relative to
    sizes         (width, height) of what the model makes, or None where only the model itself can tell
    shard         (i, n): of n machines this is number i, from 1
    """

    seed: int
    name: NameTemplate
    defaults: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    sizes: tuple[tuple[int, int], ...] | None = None
    wildcards: bool = True
    all_combinations: bool = False
    shard: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Task:
    """A line whose every image can be asked for: its request, with a seed, and the template of its prompt.

    given: the fields with paths as the file has them; the request has them as seen from the working folder.
    """

    row: Row
    request: Request
    template: wildcards.Template
    all_combinations: bool
    given: Mapping[str, Any]

    @property
    def count(self) -> int:
        """The number of its images."""
        return self.request.count * (self.template.count() if self.all_combinations else 1)

    def jobs(self) -> Iterator[Job]:
        """Its images: n of each combination with the seeds seed + i, or n that each choose by their own seed."""
        prompts = self.template.combinations() if self.all_combinations else [None]
        numbered = ((prompt, one) for prompt in prompts for one in self.request.images())
        for image, (prompt, one) in enumerate(numbered):
            if self.template.has_choices:
                prompt = self.template.sample(one.seed) if prompt is None else prompt
                one = one.replace(prompt=prompt)
            elif (plain := "".join(self.template.parts)) != one.prompt:  # an escaped brace
                one = one.replace(prompt=plain)
            yield Job(one, self.row, image, key_of(self.row.index, image, one, self.given))


def check(row: Row, settings: Settings) -> Task | BadLine:
    """The line as a Task, if all of its images can be asked for; else what is wrong with it."""
    try:
        return _checked(row, settings)
    except RequestError as error:
        return BadLine.of(row.line, row.index, error)


def tasks(rows: Iterable[Row | BadLine], settings: Settings) -> Iterator[Task | BadLine]:
    """The lines of this machine's shard, each checked."""
    i, n = settings.shard
    for row in rows:
        if row.index % n == i - 1:
            yield check(row, settings) if isinstance(row, Row) else row


def line_seed(seed: int, index: int) -> int:
    """The seed of a line that has none, of 32 bits: another one for each line, the same in each run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4])


def key_of(index: int, image: int, request: Request, given: Mapping[str, Any] | None = None) -> int:
    """64 bits that tell an image from the others: its line, its place there, and all that was asked for.

    `given` are fields as the file has them: a path is the same from whichever folder it is seen.
    """
    asked = {name: value for name, value in request.to_dict().items() if value is not None} | dict(given or {})
    told = json.dumps([index, image, asked], sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8])


def name_values(job: Job, request: Request, model: str) -> dict[str, Any]:
    """What a NameTemplate can say of an image; `request` is the job's as the model resolved it."""
    own = {
        "index": job.row.index,
        "line": job.row.line,
        "image": job.image,
        "seed": request.seed,
        "slug": title(request),
        "id": request.id,
        "size": size_text(request.size) if request.size else None,
        "mode": request.mode,
        "model": model,
        "sampler": request.sampler,
    }
    return {**job.row.columns, **own}


def _checked(row: Row, settings: Settings) -> Task:
    fields = {**settings.defaults, **row.fields}
    mode = fields.get("mode", "generate")
    if mode in MODES:  # a default for all lines is none for those of a mode without such a field
        foreign = set(foreign_fields(mode))
        if mode == "inpaint" or mode == "outpaint" and row.fields.keys() & {*SIDES}:
            foreign.add("size")  # the picture and the margins say
        fields = {name: fields[name] for name in fields if name in row.fields or name not in foreign}
    if mode == "edit":  # an edit goes to a prompt or to an embedding: the line's own, where a default says the other
        prompts = {"prompt", "from_prompt"}
        others = {"embedding"} if prompts & row.fields.keys() else prompts if "embedding" in row.fields else set()
        fields = {name: fields[name] for name in fields if name in row.fields or name not in others}
    if fields.get("seed") is None:
        fields["seed"] = line_seed(settings.seed, row.index)
    given = {name: fields[name] for name in FILE_FIELDS if isinstance(row.fields.get(name), str)}
    for name, path in given.items():
        fields[name] = _found(settings.folder, name, path)
    sources = row.fields.get("sources")
    if isinstance(sources, str | list):
        given["sources"] = sources
        each = [one.strip() for one in sources.split("|")] if isinstance(sources, str) else sources
        fields["sources"] = [
            _found(settings.folder, "sources", one) if isinstance(one, str) and source_kind(one) != "prompt" else one
            for one in each
        ]
    request = Request.from_dict(fields)
    sizes = settings.sizes
    if sizes and request.size is not None and request.mode not in CANVAS_MODES and request.size not in sizes:
        known = ", ".join(map(size_text, sizes))
        raise RequestError(f"size {size_text(request.size)} is not one that the model makes; choose from {known}")
    template = wildcards.parse(request.prompt) if settings.wildcards else wildcards.Template((request.prompt,))
    task = Task(row, request, template, settings.all_combinations, given)
    if task.all_combinations and template.count() > wildcards.MAX_COMBINATIONS:
        raise RequestError(
            f"prompt has {template.count():,} combinations; at most {wildcards.MAX_COMBINATIONS:,} are drawn of a line"
        )
    # Every image where the choices may make an empty prompt; else they differ in nothing that can be wrong.
    for job in task.jobs():
        settings.name.name(name_values(job, request, "model"), "")
        if not template.has_choices:
            break
    return task


def _found(folder: Path, name: str, path: str) -> str:
    """A path of the file as seen from the working folder. Raises RequestError if nothing is there."""
    if not os.path.isfile(folder / path):
        raise RequestError(f"{name} {path!r} is not a file; paths are relative to the prompt file")
    return str(folder / path)
