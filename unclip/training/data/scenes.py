"""Rendered scenes of the bundled domain as a dataset."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from unclip.errors import DataError, did_you_mean
from unclip.stickers.compose import COUNTED, SINGLES, SPLITS, SPREAD
from unclip.stickers.render import render
from unclip.stickers.sprites import load_nouns
from unclip.stickers.stream import scene_at
from unclip.training.data.decode import Sample


class Scenes(Dataset[Sample]):
    """Scenes composed without end: no epochs, as no index repeats. Raises DataError for an unknown split or noun."""

    def __init__(
        self,
        size: int,
        seed: int,
        split: str = "train",
        singles: float = SINGLES,
        alike: int = 1,
        nouns: Sequence[str] = (),
        spread: int = SPREAD,
        hard_pairs: bool = False,
        counts: float = COUNTED,
    ):
        if split not in SPLITS:
            raise DataError(f"scenes have no split {split!r}; {did_you_mean(split, SPLITS)}")
        if unknown := [noun for noun in nouns if noun not in load_nouns()]:
            raise DataError(f"scenes have no noun {unknown[0]!r}; {did_you_mean(unknown[0], load_nouns())}")
        self.size, self.seed = size, seed
        self.options = split, singles, alike, tuple(nouns), spread, hard_pairs, counts

    def __getitem__(self, index: int) -> Sample:
        scene, caption = scene_at(self.seed, index, *self.options)
        pixels = torch.from_numpy(render(scene, self.size))  # h w 3
        return pixels.permute(2, 0, 1).contiguous(), caption  # 3 h w
