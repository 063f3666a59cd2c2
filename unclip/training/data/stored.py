"""Stored images with captions: what folders and tar shards have in common."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.training.data.decode import Sample, check_header, decode_image, extension_of

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""(items, what is done with them) -> the same items, while a progress bar counts them."""


def untracked(items: Sequence[Any], _description: str) -> Iterable[Any]:
    """The items, without a progress bar."""
    return items


class StoredSample(Protocol):
    """A stored image with its captions. Each call reads the file."""

    @property
    def name(self) -> str:
        """The file, for messages."""
        ...

    def image(self, limit: int = -1) -> bytes:
        """The encoded image, or its first `limit` bytes. Raises DataError if it cannot be read."""
        ...

    def captions(self) -> list[str]:
        """The captions, at least one. Raises DataError if there is none."""
        ...


@dataclass(frozen=True)
class Listing:
    """The samples of a folder or of shards, in a fixed order.

    where: the folder or the shards, for messages.
    faults: a line for each image without a caption, caption without an image, and part that cannot be read.
    notes: a line about files that are not read on purpose.
    """

    where: str
    samples: Sequence[StoredSample]
    faults: Sequence[str] = ()
    notes: Sequence[str] = ()

    def without(self, items: Collection[int]) -> "Listing":
        """The listing without faults and without the samples of some numbers. Raises DataError if nothing is left."""
        samples = [sample for item, sample in enumerate(self.samples) if item not in items]
        if not samples:
            raise DataError(f"{self.where}: no image with a caption can be read; mend the files")
        return replace(self, samples=samples, faults=())


class CaptionedImages(Dataset[Sample]):
    """Stored images in a new random order every epoch: index i is image `i % len` of epoch `i // len`.

    `len` is the number of images. Indices continue beyond it. If an image has several captions, (seed, i) selects one.
    Raises DataError if the listing has faults; `Listing.without` leaves them out.
    """

    def __init__(self, listing: Listing, size: int, seed: int):
        if count := len(listing.faults):
            raise DataError(listing.faults[0] + (f" (and {count - 1} more)" if count > 1 else ""))
        self.samples, self.size, self.seed = listing.samples, size, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[shuffled_place(index, len(self), self.seed)]
        captions = sample.captions()
        caption = captions[_random_bits(self.seed, "caption", index) % len(captions)]
        return decode_image(sample.image(), sample.name, self.size), caption


def shuffled_place(index: int, count: int, seed: int) -> int:
    """The place of data index i among `count` samples: each epoch of `count` indices has an order of its own."""
    if index < 0:
        raise IndexError(f"index {index}: data indices start at 0")
    epoch, place = divmod(index, count)
    return _order(count, _random_bits(seed, "epoch", epoch))[place]


@lru_cache(maxsize=4)
def _order(count: int, seed: int) -> list[int]:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def find_faults(
    samples: Sequence[StoredSample], *, decode: bool = False, track: Track = untracked
) -> Iterator[tuple[int, str]]:
    """Read the caption and the header of every sample; yield (number, what is wrong) for each that cannot be used.

    decode: decode the pixels as well, which finds files that are cut off. One sample is in memory at a time.
    """
    doing = "decoding images" if decode else "reading headers and captions"
    for item, sample in enumerate(track(samples, doing)):
        try:
            sample.captions()
            if decode:
                decode_image(sample.image(), sample.name, 64)
            else:
                check_header(sample.image, sample.name)
        except DataError as error:
            yield item, str(error)


def describe_unread(where: str, unread: Counter[str]) -> tuple[str, ...]:
    """A note on files that are not read, given their number by extension; empty if there are none."""
    if not unread:
        return ()
    kinds = [f"{count:,} {'.' + kind if kind else 'without an extension'}" for kind, count in unread.most_common(8)]
    others = sum(unread.values()) - sum(count for _, count in unread.most_common(8))
    shown = ", ".join([*kinds, *([f"{others:,} others"] if others else [])])
    return (f"{where}: {sum(unread.values()):,} other files are not read: {shown}",)


def count_extensions(names: Iterable[str]) -> Counter[str]:
    """The number of files by their extension, in lower case."""
    return Counter(extension_of(name) for name in names)


def _random_bits(seed: int, purpose: str, counter: int) -> int:
    """63 random bits: a pure function of the arguments, equal on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
