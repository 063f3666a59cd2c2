"""Rendered scenes of the bundled domain as a dataset."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from unclip.stickers.compose import SceneOptions
from unclip.stickers.render import random_crop, render, render_crop
from unclip.stickers.scene import Scene
from unclip.stickers.stream import scene_at
from unclip.training.data.decode import Sample

CROP_STREAM = 2**33
"""Added to the seed for the random crops: seeds stay below 2**31, and `stickers.stream` uses 2**32."""


@dataclass(frozen=True)
class SceneSource:
    """The scenes of a data table.

    options: their distribution. crop: side in pixels of the part of an image that is rendered; None renders all of it.
    """

    options: SceneOptions = SceneOptions()  # noqa: RUF009 (frozen)
    crop: int | None = None


class Scenes(Dataset[Sample]):
    """An endless dataset of rendered scenes and their captions. There are no epochs: no index repeats a scene.

    With `SceneOptions.layouts`, each sample ends with the scene's layout, float32 `l` (`models.layout`).
    """

    def __init__(self, size: int, seed: int, source: SceneSource | None = None):
        self.size, self.seed = size, seed
        self.source = SceneSource() if source is None else source

    def __getitem__(self, index: int) -> Sample:
        options = self.source.options
        scene, caption = scene_at(self.seed, index, options)
        pixels = torch.from_numpy(self._render(scene, index)).permute(2, 0, 1).contiguous()  # h w 3 -> 3 h w
        if not options.layouts:
            return pixels, caption
        assert scene.layout is not None
        return pixels, caption, torch.tensor(scene.layout.vector())

    def _render(self, scene: Scene, index: int) -> np.ndarray:
        side = self.source.crop
        if side is None:
            return render(scene, self.size)
        rng = np.random.Generator(np.random.Philox(key=[self.seed + CROP_STREAM, index]))
        return render_crop(scene, self.size, random_crop(rng, scene, self.size, side), side)
