"""Training data: images with captions, addressed by an index that never ends.

Every dataset here answers `dataset[i] -> (image, caption)` for any i >= 0, a pure function of (seed, i);
the image is a uint8 tensor `3 size size`, RGB. A run that was stopped therefore resumes to the same data by
starting at the index where it stopped: no sampler state has to be saved.

Scenes draws its images (`unclip.training.scenes`), Folder reads a folder, Shards reads webdataset tar files;
`open_dataset` picks one from a recipe's table and `batches` feeds a training loop.
"""

import itertools
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from unclip.errors import DataError, nearest
from unclip.training import scenes
from unclip.training.images import Sample
from unclip.training.sprites import load_nouns
from unclip.training.stored import Folder, Shards


class Scenes(Dataset[Sample]):
    """Scenes composed without end: no epochs, as no index repeats. Raises DataError for an unknown split or noun."""

    def __init__(
        self,
        size: int,
        seed: int,
        split: str = "train",
        singles: float = scenes.SINGLES,
        alike: int = 1,
        nouns: Sequence[str] = (),
        spread: int = scenes.SPREAD,
        hard_pairs: bool = False,
        counts: float = scenes.COUNTED,
    ):
        if split not in scenes.SPLITS:
            raise DataError(f"scenes have no split {split!r}; {_nearest(split, scenes.SPLITS)}")
        if unknown := [noun for noun in nouns if noun not in load_nouns()]:
            raise DataError(f"scenes have no noun {unknown[0]!r}; {_nearest(unknown[0], load_nouns())}")
        self.size, self.seed = size, seed
        self.options = split, singles, alike, tuple(nouns), spread, hard_pairs, counts

    def __getitem__(self, index: int) -> Sample:
        scene, caption = scenes.scene_at(self.seed, index, *self.options)
        pixels = torch.from_numpy(scenes.render(scene, self.size))  # h w 3
        return pixels.permute(2, 0, 1).contiguous(), caption  # 3 h w


# The keys of each kind of data: is the key required?
KINDS = {
    "scenes": dict.fromkeys(("split", "singles", "alike", "nouns", "spread", "hard_pairs", "counts"), False),
    "folder": {"path": True},
    "webdataset": {"shards": True},
}


def open_dataset(config: Mapping[str, Any], size: int, seed: int) -> Dataset[Sample]:
    """The dataset a recipe's table asks for.

    One of {kind = "scenes"} and the options of `scenes.scene_at` (split, singles, alike, nouns, spread, hard_pairs,
    counts),
    {kind = "folder", path = "..."}, {kind = "webdataset", shards = "..." or a list}. Raises DataError, naming the
    nearest known name, for a kind or key that is not one of these.
    """
    kind = config.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise DataError(f"data kind {kind!r} is unknown; {_nearest(str(kind), KINDS)}")
    keys = KINDS[kind]
    for key in config:
        if key != "kind" and key not in keys:
            raise DataError(f"data of kind {kind!r} has no key {key!r}; {_nearest(key, keys)}")
    if missing := [key for key, required in keys.items() if required and key not in config]:
        raise DataError(f"data of kind {kind!r} needs the key {missing[0]!r}")
    for key in keys.keys() & config.keys():
        value = config[key]
        parts = value if key in ("shards", "nouns") and isinstance(value, list | tuple) and value else [value]
        if key in ("singles", "counts"):
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise DataError(f"data key {key!r} is {value!r}; it must be a share from 0 to 1")
        elif key in ("alike", "spread"):
            least = 1 if key == "alike" else 0
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise DataError(f"data key {key!r} is {value!r}; it must be a whole number from {least} up")
        elif key == "hard_pairs":
            if not isinstance(value, bool):
                raise DataError(f"data key 'hard_pairs' is {value!r}; it must be true or false")
        elif key == "nouns" and (isinstance(value, str) or len(set(map(str, parts))) < 2):
            raise DataError(f"data key 'nouns' is {value!r}; it must be a list of two nouns or more")
        elif not all(isinstance(part, str | Path) and str(part) for part in parts):
            kinds = "a path or a list of paths" if key == "shards" else "a string"
            raise DataError(f"data key {key!r} is {value!r}; it must be {kinds}")
    if kind == "scenes":
        given = {key: value for key, value in config.items() if key != "kind"}
        return Scenes(size, seed, **given)
    if kind == "folder":
        return Folder(config["path"], size, seed)
    return Shards(config["shards"], size, seed)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else f"known: {', '.join(known)}"


class _Guarded(Dataset):
    """Hands DataErrors on as values: raised inside a worker they would come out wrapped in a traceback."""

    def __init__(self, dataset: Dataset[Sample]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return self.dataset[index]
        except DataError as error:
            return DataError(str(error))


class _Consecutive:
    """Batch sampler: batch k is indices [k b, (k + 1) b), from k = start on, without end."""

    def __init__(self, batch_size: int, start: int):
        self.batch_size, self.start = batch_size, start

    def __iter__(self) -> Iterator[list[int]]:
        for k in itertools.count(self.start):
            yield list(range(k * self.batch_size, (k + 1) * self.batch_size))


def _collate(samples: list[Sample | DataError]) -> tuple[torch.Tensor, list[str]] | DataError:
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
    images, captions = zip(*samples, strict=True)
    return torch.stack(images), list(captions)  # b 3 h w


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # A terminal signals the whole group. The loop saves its state first, with what a worker still has to hand over,
    # and then ends the workers itself; a second signal ends them at once.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: signal.signal(number, signal.SIG_DFL))


def batches(
    dataset: Dataset[Sample], batch_size: int, start_step: int = 0, workers: int = 0
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Endless batches (images uint8 `b 3 h w`, captions), the first of them number `start_step`.

    Batch k holds indices [k b, (k + 1) b) of the dataset whatever the number of worker processes, which
    prefetch two batches each (0: batches are made as they are asked for). Raises DataError when a sample
    cannot be read.
    """
    loader = DataLoader(
        _Guarded(dataset),
        batch_sampler=_Consecutive(batch_size, start_step),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(0),  # else the loader draws from torch's global generator
    )
    for batch in loader:
        if isinstance(batch, DataError):
            break  # and raise out here, once the workers are gone: a traceback would keep them waiting
        yield batch
    raise batch
