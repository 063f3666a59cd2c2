"""Rendered scenes as a dataset."""

import torch

from tests.training.data.helpers import same
from unclip.training.data.datasets import open_dataset
from unclip.training.data.scenes import Scenes


def test_scenes_depend_only_on_seed_and_index():
    data = Scenes(32, 5)
    samples = [data[i] for i in range(4)]
    for image, caption in samples:
        assert image.dtype == torch.uint8 and image.shape == (3, 32, 32) and caption
    assert all(same(data[i], samples[i]) for i in (3, 1, 2, 0))
    assert same(open_dataset({"kind": "scenes"}, 32, 5)[2], samples[2])
    assert len({caption for _, caption in samples}) > 1
    assert not same(Scenes(32, 6)[0], samples[0])
