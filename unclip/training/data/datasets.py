"""Open the training data of a recipe.

Every dataset maps any index i >= 0 to (image, caption), as a pure function of (seed, i); the image is a uint8 RGB
tensor `3 size size`. A run that was stopped therefore resumes with the same data by continuing at the next index: no
sampler state has to be saved.
"""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from unclip.stickers.compose import SceneOptions
from unclip.training.data.decode import Sample
from unclip.training.data.folder import ImageFolder
from unclip.training.data.options import FolderTable, SceneTable, read_data_options
from unclip.training.data.scenes import Scenes
from unclip.training.data.webdataset import TarShards


def open_dataset(table: Mapping[str, Any], size: int, seed: int) -> Dataset[Sample]:
    """The dataset of a recipe's data table (`training.data.options`), as squares of `size` pixels.

    Raises DataError for a mistake in the table, or for data that cannot be read.
    """
    options = read_data_options(table)
    if isinstance(options, SceneTable):
        return Scenes(size, seed, SceneOptions(**options.given()))
    if isinstance(options, FolderTable):
        return ImageFolder(options.path, size, seed)
    return TarShards(options.shards, size, seed)
