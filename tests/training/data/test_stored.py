"""The order of stored images, and the choice among their captions."""

import pickle
import random
from pathlib import Path

import pytest
import torch

from tests.training.data.helpers import encoded, flat, folder_dataset, pixel, same


def test_an_epoch_has_every_image_once_with_its_caption(stored):
    assert len(stored) == 10
    orders = []
    for epoch in range(3):
        samples = [stored[10 * epoch + i] for i in range(10)]
        for image, caption in samples:
            assert image.dtype == torch.uint8 and image.shape == (3, 4, 4)
            assert pixel(image, 1, 2) == (20 * int(caption),) * 3
        orders.append([caption for _, caption in samples])
        assert sorted(orders[-1]) == [str(n) for n in range(10)]
    assert orders[0] != orders[1] != orders[2]


def test_random_access_equals_sequential_access(stored):
    sequential = [stored[i] for i in range(30)]
    indices = list(range(30))
    random.Random(0).shuffle(indices)
    copy = pickle.loads(pickle.dumps(stored))
    assert all(same(copy[i], sequential[i]) for i in indices)


def test_the_seed_decides_the_order(folder: Path):
    first, again, other = (folder_dataset(folder, 4, seed) for seed in (0, 0, 1))
    captions = [[data[i][1] for i in range(10)] for data in (first, again, other)]
    assert captions[0] == captions[1] != captions[2]


def test_negative_indices_are_refused(stored):
    with pytest.raises(IndexError):
        stored[-1]


def test_one_of_several_captions_is_selected(tmp_path: Path):
    (tmp_path / "a.JPG").write_bytes(encoded(flat(50), "JPEG"))
    (tmp_path / "a.txt").write_text("one\n\n  two  \n")
    (tmp_path / ".hidden.txt").write_text("no")
    data = folder_dataset(tmp_path, 4, 0)
    chosen = [data[i][1] for i in range(40)]
    assert set(chosen) == {"one", "two"} and chosen == [data[i][1] for i in range(40)]
