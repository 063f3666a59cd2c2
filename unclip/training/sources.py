"""Open and check the training data of a run."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unclip.errors import DataError
from unclip.training.data.check import check_listing
from unclip.training.data.datasets import Source, open_source, read_sample
from unclip.training.data.decode import Sample
from unclip.training.data.prompts import PromptList
from unclip.training.data.stored import Listing, untracked
from unclip.training.monitor import FaultList, print_note, track
from unclip.training.options import TrainingOptions
from unclip.training.recipe import Recipe

EXAMPLES_START = 2**40
"""Index of the first example for statistics and sample grids: no run comes this far in an endless dataset."""
OpenImages = Callable[[int], Dataset[Sample]]
"""Side in pixels -> the training images as squares of that size."""


def open_sources(
    recipe: Recipe,
    stages: Sequence[str | None],
    options: TrainingOptions,
    on_fault: Callable[[str], None] | None = None,
    prompts: bool = False,
) -> Mapping[str, Source]:
    """The data of stages by the recipe's tables that describe them (`Recipe.data_source`), listed and checked.

    stages: None among them has the recipe's own table. prompts: whether prompts without images are enough.

    on_fault: receives a line for each file that cannot be used, and has all images decoded; by default, headers are
    read and the first faults are printed. Raises DataError for a mistake in the tables, and for files that cannot be
    used, unless `options.skip_bad`.
    """
    tracker = untracked if options.quiet else track
    sources: dict[str, Source] = {}
    for name in stages:
        where = recipe.data_source(name)
        if where in sources:
            continue
        try:
            source = open_source(recipe.data_table(name), tracker)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if isinstance(source, PromptList) and not prompts:
            raise DataError(f"{where}: prompts without images are for --distill only: give a folder or tar shards")
        if isinstance(source, Listing):
            for note in () if options.quiet else source.notes:
                print_note(note)
            faults = FaultList(options.quiet, options.skip_bad)
            try:
                source = check_listing(
                    source,
                    where,
                    faults.add if on_fault is None else on_fault,
                    skip_bad=options.skip_bad,
                    decode=on_fault is not None,
                    track=tracker,
                )
            finally:
                faults.report()
        sources[where] = source
    return sources


def read_examples(
    images: OpenImages, device: torch.device, size: int, count: int = 16, skip_bad: bool = False
) -> tuple[Tensor, list[str]]:
    """Images `count 3 size size` in [-1, 1] and their captions, for statistics and sample grids."""
    source = images(size)
    samples = [read_sample(source, EXAMPLES_START + i, skip_bad)[0] for i in range(count)]
    pixels, captions = [sample[0] for sample in samples], [sample[1] for sample in samples]
    return torch.stack(pixels).to(device).float() / 127.5 - 1, captions
