"""Rows become Tasks, the checked lines of a file; Tasks become Jobs, one per image."""

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
from unclip.batch.word_lists import WordLists
from unclip.errors import RequestError
from unclip.requests.fields import FILE_FIELDS, MAX_IMAGES, OLD_NAMES, excluded_fields
from unclip.requests.other_tools import check_no_weights
from unclip.requests.request import Request
from unclip.requests.seeds import lists_several, split_seeds
from unclip.requests.sources import check_is_no_file, source_kind
from unclip.requests.validation import rename_old_fields
from unclip.requests.values import prompt, show, size_text

PLAIN = "; --no-wildcards reads it as text"


@dataclass(frozen=True)
class Job:
    """One image of a file.

    request   of this image: n = 1, its own seed and prompt; fields with model defaults may still be None
    row       the line that it comes from
    image     its position among the images of its line, from 0
    key       identifies the image in its folder, in this run and in later runs of the same file
    rank      with best_of: its rank among the candidates, from 0
    content   identifies the image without its place in the file, as `content_key` does
    """

    request: Request
    row: Row
    image: int
    key: int
    rank: int = 0
    content: int = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a whole file.

    seed          with the index of a line, it determines the seed of a line without one
    name          template of the file names
    defaults      fields for lines that do not set them
    folder        paths in the file are relative to it
    sizes         (width, height) of the model's images, or None if they are not known before the model is loaded
    wildcards     whether prompts may have wildcards; if not, everything in them is text
    word_lists    finds the lists that prompts name; None leaves the names as they are
    shard         (i, n): run every n-th line, as number i from 1
    """

    seed: int
    name: NameTemplate
    defaults: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    sizes: tuple[tuple[int, int], ...] | None = None
    wildcards: bool = True
    word_lists: WordLists | None = None
    all_combinations: bool = False
    shard: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Task:
    """A valid line: its request, with a seed, and the template of its prompt.

    given: file fields with their paths as written in the file; the request has them relative to the working folder.
    run_seed: the seed of the whole file, if the line has no seed of its own and gets one from its place.
    seeds: all of them, if the line lists several; the request has the first.
    """

    row: Row
    request: Request
    template: wildcards.Template
    all_combinations: bool
    given: Mapping[str, Any]
    run_seed: int | None = None
    seeds: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """The number of images."""
        return self.images * (self.template.count() if self.all_combinations else 1)

    @property
    def images(self) -> int:
        """The number of images of one combination."""
        return self.request.count * max(1, len(self.seeds))

    def requests(self) -> Iterator[Request]:
        """One request per image of one combination, with the prompt as it is written."""
        if len(self.seeds) < 2:
            return self.request.images()
        return (one for seed in self.seeds for one in self.request.replace(seed=seed).images())

    def jobs(self) -> Iterator[Job]:
        """One job per image: n for each combination, with seeds seed + i, or n that choose by their own seed."""
        for image, rank, one in self._images():
            key = job_key(self.row.index, image, one, self.given, rank)
            yield Job(one, self.row, image, key, rank, content_key(self, image, one, rank))

    def first(self) -> Job:
        """The job of the first image, without its keys, which take as long as its check."""
        image, rank, one = next(self._images())
        return Job(one, self.row, image, 0, rank)

    def _images(self) -> Iterator[tuple[int, int, Request]]:
        """(position in the line, rank, request) of each image."""
        texts = self.template.combinations() if self.all_combinations else [None]
        plain = "".join(map(str, self.template.parts)) if not self.template.has_choices else None
        numbered = ((text, rank, one) for text in texts for rank, one in enumerate(self.requests()))
        for image, (text, rank, one) in enumerate(numbered):
            if self.template.has_choices:
                assert one.seed is not None  # `images` sets it
                text = self.template.sample(one.seed) if text is None else text
                one = one.model_copy(update={"prompt": text})  # a bad one is an image that fails, not the run
            elif plain != one.prompt:  # an escaped brace
                one = one.model_copy(update={"prompt": plain})
            yield image, rank if one.best_of is not None else 0, one


def check_row(row: Row, settings: Settings) -> Task | BadLine:
    """The line as a Task, or as a BadLine with the reason."""
    try:
        return _make_task(row, settings)
    except RequestError as error:
        return BadLine.of(row.line, row.index, error)


def check_rows(rows: Iterable[Row | BadLine], settings: Settings) -> Iterator[Task | BadLine]:
    """The lines of this shard, checked."""
    i, n = settings.shard
    for row in rows:
        if row.index % n == i - 1:
            yield check_row(row, settings) if isinstance(row, Row) else row


def line_seed(seed: int, index: int) -> int:
    """The seed of a line without one, 32 bits: different for each line, the same in each run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4])


def job_key(index: int, image: int, request: Request, given: Mapping[str, Any], rank: int = 0) -> int:
    """64 bits that identify an image: its line, its position there, and its request.

    given: file fields as written in the file, so that the key does not depend on the working folder. The key uses the
    old names of fields and their old ranks: manifests of earlier versions must still match.
    """
    return _hash([index, image, _identifying_fields(request, given, rank)])


def content_key(task: Task, image: int, request: Request, rank: int = 0) -> int:
    """64 bits that identify an image of a line wherever the line is in its file.

    A seed that the line gets from its place does not count, and neither do the choices that depend on it.
    """
    fields = _identifying_fields(request, task.given, rank)
    if task.run_seed is not None:
        fields["seed"] = None
        if not task.all_combinations:
            fields["prompt"] = task.request.prompt
    return _hash([task.run_seed, image, fields])


def _identifying_fields(request: Request, given: Mapping[str, Any], rank: int) -> dict[str, Any]:
    fields = {name: value for name, value in request.to_dict().items() if value is not None} | dict(given)
    for old, new in OLD_NAMES.items():
        if new in fields:
            fields[old] = fields.pop(new)
    if request.best_of is not None:
        fields["rank"] = rank
    return fields


def _hash(values: list[Any]) -> int:
    text = json.dumps(values, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def name_values(job: Job, request: Request, model: str) -> dict[str, Any]:
    """The values of a NameTemplate for an image. request: the job's, resolved by the model."""
    values = {
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
    return {**job.row.columns, **values}


def _make_task(row: Row, settings: Settings) -> Task:
    fields, seeds = split_seeds({**defaults_for(row.fields, settings.defaults), **row.fields})
    has_seed = len(seeds) > 0
    if not has_seed:
        fields["seed"] = line_seed(settings.seed, row.index)
    given = {name: fields[name] for name in FILE_FIELDS if isinstance(row.fields.get(name), str)}
    for name, path in given.items():
        fields[name] = _resolve_path(settings.folder, name, path)
    sources = row.fields.get("sources")
    if isinstance(sources, str | list):
        given["sources"] = sources
        each = [one.strip() for one in sources.split("|")] if isinstance(sources, str) else sources
        fields["sources"] = [
            _resolve_path(settings.folder, "sources", one)
            if isinstance(one, str) and source_kind(one) != "prompt"
            else one
            for one in each
        ]
    request = Request.from_dict(fields)
    for name, text in request.texts():
        check_is_no_file(name, text, settings.folder)
        if settings.wildcards:
            check_no_weights(name, text, PLAIN)
    sizes = settings.sizes
    if sizes and request.size is not None and not request.edits_canvas and request.size not in sizes:
        known = ", ".join(map(size_text, sizes))
        raise RequestError(f"size {size_text(request.size)} is not one that the model generates; choose from {known}")
    plain = wildcards.Template((request.prompt,))
    template = wildcards.parse(request.prompt, settings.word_lists) if settings.wildcards else plain
    task = Task(row, request, template, settings.all_combinations, given, None if has_seed else settings.seed, seeds)
    _check_images(task)
    first = task.first()
    prompt("prompt", first.request.prompt)
    settings.name.name(name_values(first, request, "model"), "")
    return task


def _check_images(task: Task) -> None:
    """Raise RequestError for a line with too many images, or with choices that leave no prompt where one is needed.

    Without a look at each image: a short line may ask for very many.
    """
    combinations = task.template.count() if task.all_combinations else 1
    limit = wildcards.MAX_COMBINATIONS
    if combinations > limit:
        raise RequestError(f"prompt has more than {limit:,} combinations; a line may have {limit:,}")
    if task.count > MAX_IMAGES:
        each = f"prompt has {combinations:,} combinations of" if combinations > 1 else "n asks with its frames for"
        raise RequestError(f"{each} {task.images:,} images; a line may have {MAX_IMAGES:,} in all")
    if task.template.has_choices and task.template.can_be_blank:
        try:
            task.request.replace(prompt="")
        except RequestError:
            raise RequestError("prompt is empty for some of its choices; give each of them a text") from None


def defaults_for(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that apply to a line with these fields: the mode has them, and the line does not exclude them."""
    defaults = rename_old_fields(defaults)
    mode = fields.get("mode", defaults.get("mode", "generate"))
    excluded = excluded_fields(mode, fields)
    if lists_several(fields.get("seed")):  # one image each
        excluded |= {"n", "best_of"}
    return {name: value for name, value in defaults.items() if name not in fields and name not in excluded}


def _resolve_path(folder: Path, name: str, path: str) -> str:
    """A path of the file, relative to the working folder. Raises RequestError if there is no such file."""
    if not os.path.isfile(folder / path):
        raise RequestError(f"{name} {show(path)} is not a file; paths are relative to the prompt file")
    return str(folder / path)
