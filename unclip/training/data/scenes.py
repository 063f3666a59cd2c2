"""Rendered scenes of the bundled model's domain as a dataset."""

import torch
from torch.utils.data import Dataset

from unclip.errors import DataError, did_you_mean
from unclip.stickers.render import render
from unclip.stickers.sprites import load_nouns
from unclip.stickers.stream import scene_at
from unclip.training.data.decode import Sample
from unclip.training.data.options import SceneOptions


class Scenes(Dataset[Sample]):
    """An endless stream of scenes without epochs: every index is a new scene.

    size: side of the images in pixels. Raises DataError for an unknown noun.
    """

    def __init__(self, size: int, seed: int, options: SceneOptions = SceneOptions()):  # noqa: B008 (frozen)
        known = load_nouns()
        if unknown := [noun for noun in options.nouns or () if noun not in known]:
            raise DataError(f"scenes have no noun {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
        self.size, self.seed = size, seed
        self.options = options.given()

    def __getitem__(self, index: int) -> Sample:
        scene, caption = scene_at(self.seed, index, **self.options)
        pixels = torch.from_numpy(render(scene, self.size))  # h w 3
        return pixels.permute(2, 0, 1).contiguous(), caption  # 3 h w
