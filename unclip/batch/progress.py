"""The progress of a run through its prompt file, by which a resumed run skips what is checked and finished.

The rows of a file are divided into blocks. `.unclip/progress.json` keeps, with the hashes of the file and of the
settings, the blocks whose images are all done, and the keys of the images that are done in other blocks. It is replaced
now and then, as a whole, and together with the state of the folder that it speaks of (`output_folder.Folder`). If
anything differs, a run reads and checks everything, as the first one does.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from unclip.batch.estimate import Workload
from unclip.batch.jobs import Job, Settings, Task
from unclip.batch.prompt_file import FileDigest, Span
from unclip.version import __version__

BLOCK = 4096
"""Rows of a block, of one shard. No micro-batch has images of two blocks, so that a run can begin with any block."""
MAX_KEYS = 1 << 18
"""Images in blocks that are not finished whose keys are kept. Beyond that, a resumed run reads everything."""
SAVE_EVERY = 30
"""Seconds between two records of the progress. What is made after the last one is found one by one."""

Count = Annotated[int, Field(ge=0)]


class SavedProgress(BaseModel):
    """The progress of a run as a JSON object.

    settings          hash of everything beside the prompt file that its jobs depend on
    sha256            of the prompt file
    images, sizes     that it asks for; sizes as [width, height, images], null for the model's
    bad               number of lines that cannot be run
    notes             about the file
    blocks            [line of its first row, images] of each block
    finished          numbers of the blocks whose images are all done
    keys              of the images that are done in other blocks
    """

    model_config = ConfigDict(frozen=True, strict=True)

    settings: str
    sha256: str
    images: Count
    sizes: list[list[int | None]]
    bad: Count
    notes: list[str]
    blocks: list[list[Count]]
    finished: list[Count]
    keys: list[Count]


@dataclass
class Blocks:
    """The blocks of a file.

    rows        of each; with shards, those of all shards
    lines       the line of the first row of each
    images      of each
    finished    numbers of the blocks whose images are all done
    keys        of the images that are done in other blocks
    met         those that this run has met, by block
    """

    rows: int = BLOCK
    lines: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    finished: set[int] = field(default_factory=set)
    keys: set[int] = field(default_factory=set)
    met: dict[int, list[int]] = field(default_factory=dict)

    def add(self, index: int, line: int, images: int = 0) -> None:
        """Add a row, in the order of the file."""
        if index // self.rows == len(self.lines):
            self.lines.append(line)
            self.images.append(0)
        self.images[-1] += images

    def done(self, job: Job) -> None:
        """A job of this run is done. Each comes once."""
        if len(self.keys) > MAX_KEYS:
            return
        block = job.row.index // self.rows
        self.keys.add(job.key)
        met = self.met.setdefault(block, [])
        met.append(job.key)
        if len(met) == self.images[block]:
            self.finished.add(block)
            self.keys.difference_update(met)
            del self.met[block]

    def finish(self) -> None:
        """All images are done."""
        self.finished.update(range(len(self.lines)))

    @property
    def finished_images(self) -> int:
        """The number of images in finished blocks."""
        return sum(self.images[block] for block in self.finished)

    def skipped(self, shard: int) -> Iterator[Span]:
        """The rows of finished blocks, joined where they follow each other. shard: its number, from 1."""
        block, count = 0, len(self.lines)
        while block < count:
            first = block
            while block < count and self._is_finished(block):
                block += 1
            if block > first:
                ends = block == count
                yield Span(self._row(first, shard), self._row(block, shard), None if ends else self.lines[block])
            block += 1

    def _is_finished(self, block: int) -> bool:
        return block in self.finished or self.images[block] == 0

    def _row(self, block: int, shard: int) -> int:
        return block * self.rows + shard - 1


@dataclass
class Checked:
    """A prompt file that was checked.

    workload, bad      its work, and the number of lines that cannot be run
    digest             of the file; None if its progress is not saved
    by_model           whether the model has checked it, too
    is_saved           whether it is the check of an earlier run
    notes              about the file
    is_repeatable      whether the check depends on the file and the settings alone, not on other files
    """

    workload: Workload
    blocks: Blocks
    digest: FileDigest | None = None
    bad: int = 0
    notes: list[str] = field(default_factory=list)
    by_model: bool = False
    is_saved: bool = False
    is_repeatable: bool = True

    def refuse(self, task: Task) -> None:
        """A line that was counted will not be generated."""
        self.blocks.images[task.row.index // self.blocks.rows] -= task.count
        self.workload.images -= task.count
        self.workload.sizes[task.request.size] -= task.count

    def record(self, settings: str) -> SavedProgress | None:
        """The progress as it is now; None if too many blocks are not finished."""
        blocks, digest = self.blocks, self.digest
        if digest is None or len(blocks.keys) > MAX_KEYS:
            return None
        return SavedProgress(
            settings=settings,
            sha256=digest.sha256,
            images=self.workload.images,
            sizes=[[*(size or (None, None)), count] for size, count in self.workload.sizes.items()],
            bad=self.bad,
            notes=self.notes,
            blocks=[list(pair) for pair in zip(blocks.lines, blocks.images, strict=True)],
            finished=sorted(blocks.finished),
            keys=sorted(blocks.keys),
        )


def restore(saved: SavedProgress, digest: FileDigest, recent: Iterable[int], rows: int) -> Checked | None:
    """The check of a prompt file, and its blocks, from a record of them; None if that is damaged.

    digest: of the file now. recent: keys of images that were made after the record. rows: of a block.
    """
    try:
        lines, images = [line for line, _ in saved.blocks], [images for _, images in saved.blocks]
        sizes = Counter({(w, h) if w and h else None: count or 0 for w, h, count in saved.sizes})
    except ValueError:
        return None
    if any(block >= len(lines) for block in saved.finished):
        return None
    blocks = Blocks(rows, lines, images, set(saved.finished), {*saved.keys, *recent})
    workload = Workload(saved.images, min(blocks.finished_images + len(blocks.keys), saved.images), sizes)
    return Checked(workload, blocks, digest, saved.bad, list(saved.notes), by_model=True, is_saved=True)


class RunProgress:
    """The progress of a run, saved now and then. save: writes a record of it."""

    def __init__(self, checked: Checked, settings: str, save: Callable[[dict[str, Any]], None]) -> None:
        self._checked = checked
        self._settings = settings
        self._save = save
        self._saved = time.monotonic()

    def done(self, job: Job) -> None:
        """A job is done, now or before."""
        self._checked.blocks.done(job)

    def save_if_due(self) -> None:
        """Save the progress, unless that was done a short time ago. After all done images are in the manifest."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Save the progress. A full disk is no error here: the next image reports it."""
        record = self._checked.record(self._settings)
        with suppress(OSError):
            if record is not None:
                self._save(record.model_dump())
        self._saved = time.monotonic()


def settings_digest(settings: Settings, source: str, format: str, model: Sequence[Any]) -> str:
    """A hash of all that the jobs of a prompt file, and their check, depend on beside the file.

    source: name of the file. model: identifies the model, and the options that change it.
    """
    values = [
        __version__,
        source,
        format,
        BLOCK,
        settings.seed,
        settings.name.text,
        dict(settings.defaults),
        str(settings.folder.absolute()),
        settings.sizes,
        settings.wildcards,
        settings.all_combinations,
        settings.shard,
        list(model),
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
