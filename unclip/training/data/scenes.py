"""Rendered scenes of the bundled domain as a dataset."""

import torch
from torch.utils.data import Dataset

from unclip.stickers.compose import SceneOptions
from unclip.stickers.render import render
from unclip.stickers.stream import scene_at
from unclip.training.data.decode import Sample


class Scenes(Dataset[Sample]):
    """An endless dataset of rendered scenes and their captions. There are no epochs: no index repeats a scene."""

    def __init__(self, size: int, seed: int, options: SceneOptions | None = None):
        self.size, self.seed = size, seed
        self.options = SceneOptions() if options is None else options

    def __getitem__(self, index: int) -> Sample:
        scene, caption = scene_at(self.seed, index, self.options)
        pixels = torch.from_numpy(render(scene, self.size))  # h w 3
        return pixels.permute(2, 0, 1).contiguous(), caption  # 3 h w
