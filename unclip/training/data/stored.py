"""Stored images with captions: what folders and tar shards have in common."""

import hashlib

import torch
from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.training.data.decode import Sample, decode_image


class CaptionedImages(Dataset[Sample]):
    """Stored images in a new random order every epoch: index i is image `i % len` of epoch `i // len`.

    `len` is the number of images. Indices continue beyond it. If an image has several captions, (seed, i) selects one.
    """

    def __init__(self, count: int, size: int, seed: int):
        self.count, self.size, self.seed = count, size, seed
        self._order: tuple[int, torch.Tensor] | None = None  # the current epoch and its permutation

    def _load(self, item: int) -> tuple[str, bytes, list[str]]:
        """An image's name for messages, its encoded bytes, and its captions."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index < 0:
            raise IndexError(f"index {index}: data indices start at 0")
        epoch, place = divmod(index, self.count)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(_random_bits(self.seed, "epoch", epoch))
            self._order = (epoch, torch.randperm(self.count, generator=generator))
        name, data, captions = self._load(int(self._order[1][place]))
        if not captions:
            raise DataError(f"{name}: the caption is empty; write one or remove the image")
        caption = captions[_random_bits(self.seed, "caption", index) % len(captions)]
        return decode_image(data, name, self.size), caption


def check_pairs(where: str, uncaptioned: list[str], imageless: list[str]) -> None:
    """Raise one DataError for all images without a caption and all captions without an image."""
    faults = [
        f"{len(names)} {fault} (first: {names[0]})"
        for names, fault in ((uncaptioned, "without a caption"), (imageless, "without an image"))
        if names
    ]
    if faults:
        raise DataError(f"{where}: samples {' and '.join(faults)}; complete or remove them")


def _random_bits(seed: int, purpose: str, counter: int) -> int:
    """63 random bits: a pure function of the arguments, equal on every machine."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
