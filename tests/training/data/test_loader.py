"""Batches: their order, worker processes and errors."""

import itertools
from pathlib import Path

import pytest
import torch

from tests.training.data.helpers import folder_dataset, same
from unclip.errors import DataError
from unclip.training.data.loader import batches


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_consecutive_and_can_resume(stored, workers: int):
    whole = list(itertools.islice(batches(stored, 4, 0, 0), 6))  # 24 indices: into the third epoch
    images, captions = whole[3]
    assert images.shape == (4, 3, 4, 4) and images.dtype == torch.uint8
    assert all(same((images[j], captions[j]), stored[12 + j]) for j in range(4))
    resumed = list(itertools.islice(batches(stored, 4, 2, workers), 4))
    assert all(same(a, b) for a, b in zip(resumed, whole[2:], strict=True))


def test_batches_leave_the_global_generator_alone(stored):
    before = torch.get_rng_state()
    next(batches(stored, 2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_the_batches_with_a_one_line_error(folder: Path, workers: int):
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[:50])
    with pytest.raises(DataError, match=r"cannot read .*4\.png \(") as caught:
        list(itertools.islice(batches(folder_dataset(folder, 4, 0), 2, 0, workers), 5))
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
