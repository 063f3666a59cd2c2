"""Prompts without images, for distillation, which has its teacher generate the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.training.data.decode import Sample, read_bytes, text_lines
from unclip.training.data.stored import shuffled_place


@dataclass(frozen=True)
class PromptList:
    """The prompts of a file, in its order. where: the file, for messages."""

    where: str
    prompts: Sequence[str]


def read_prompts(path: str | Path) -> PromptList:
    """The non-empty lines of a text file. Raises DataError for a file that cannot be read, or without prompts."""
    prompts = text_lines(read_bytes(Path(path)), str(path))
    if not prompts:
        raise DataError(f"{path} has no prompts: write one on each line")
    return PromptList(str(path), prompts)


class Prompts(Dataset[Sample]):
    """Prompts in a new random order every epoch, each with a blank image `3 size size`."""

    def __init__(self, found: PromptList, size: int, seed: int):
        self.prompts, self.size, self.seed = found.prompts, size, seed

    def __getitem__(self, index: int) -> Sample:
        place = shuffled_place(index, len(self.prompts), self.seed)
        return torch.zeros(3, self.size, self.size, dtype=torch.uint8), self.prompts[place]
