"""Open the training data of a recipe.

Every dataset maps any index i >= 0 to (image, caption), as a pure function of (seed, i); the image is a uint8 RGB
tensor `3 size size`. Scenes may add their layout. A run that was stopped therefore resumes with the same data by
continuing at the next index: no sampler state has to be saved.
"""

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.stickers.compose import SceneOptions
from unclip.stickers.drawings import load_renderer
from unclip.stickers.sprites import VECTOR_STYLES
from unclip.training.data.decode import Sample
from unclip.training.data.folder import list_folder
from unclip.training.data.options import FolderTable, PromptTable, SceneTable, read_data_options
from unclip.training.data.prompts import PromptList, Prompts, read_prompts
from unclip.training.data.scenes import Scenes, SceneSource
from unclip.training.data.stored import CaptionedImages, Listing, Track, untracked
from unclip.training.data.webdataset import list_shards

Source = SceneSource | Listing | PromptList
"""Training data that are opened, before their images have a size."""

SUBSTITUTES = 2**41
"""Index of the first sample that replaces one that cannot be read: no run comes this far."""
ATTEMPTS = 16
"""Substitutes that are tried for one sample."""


def open_source(table: Mapping[str, Any], track: Track = untracked) -> Source:
    """The training data of a recipe's data table (`training.data.options`); listing the files may take minutes.

    Raises DataError for a mistake in the table, if there are no data, or if what renders them is not installed.
    """
    options = read_data_options(table)
    if isinstance(options, SceneTable):
        scenes = SceneOptions(**options.given())
        if any(style in VECTOR_STYLES for style in scenes.styles):
            load_renderer()  # or a later stage would fail after hours of training
        return SceneSource(scenes, options.crop)
    if isinstance(options, PromptTable):
        return read_prompts(options.path)
    return list_folder(options.path) if isinstance(options, FolderTable) else list_shards(options.shards, track)


def make_dataset(source: Source, size: int, seed: int) -> Dataset[Sample]:
    """The dataset of training data, as squares of `size` pixels. Raises DataError for a listing with faults."""
    if isinstance(source, PromptList):
        return Prompts(source, size, seed)
    return Scenes(size, seed, source) if isinstance(source, SceneSource) else CaptionedImages(source, size, seed)


def open_dataset(table: Mapping[str, Any], size: int, seed: int) -> Dataset[Sample]:
    """The dataset of a recipe's data table, as squares of `size` pixels.

    Raises DataError for a mistake in the table, or for data that cannot be read.
    """
    return make_dataset(open_source(table), size, seed)


def read_sample(dataset: Dataset[Sample], index: int, skip_bad: bool) -> tuple[Sample, list[str]]:
    """The sample `index`, and a line for each sample that could not be read.

    skip_bad: replace a sample that cannot be read by a random other one, which is a function of the index. Raises
    DataError for a sample that cannot be read; with `skip_bad`, if its substitutes cannot be read either.
    """
    skipped: list[str] = []
    indices = [index, *(SUBSTITUTES + index * ATTEMPTS + k for k in range(ATTEMPTS if skip_bad else 0))]
    for candidate in indices:
        try:
            return dataset[candidate], skipped
        except DataError as error:
            skipped.append(str(error))
    raise DataError(skipped[0] + (f"; nor can {ATTEMPTS} others be read" if skip_bad else ""))
