"""Rendered scenes as a dataset."""

import torch

from tests.training.data.helpers import same
from unclip.stickers.compose import SceneOptions
from unclip.stickers.render import render
from unclip.stickers.stream import scene_at
from unclip.training.data.datasets import open_dataset
from unclip.training.data.loader import batches
from unclip.training.data.scenes import Scenes


def test_scenes_depend_only_on_seed_and_index():
    data = Scenes(32, 5)
    samples = [data[i] for i in range(4)]
    for image, caption, *layout in samples:
        assert not layout
        assert image.dtype == torch.uint8 and image.shape == (3, 32, 32) and caption
    assert all(same(data[i], samples[i]) for i in (3, 1, 2, 0))
    assert same(open_dataset({"kind": "scenes"}, 32, 5)[2], samples[2])
    assert len({sample[1] for sample in samples}) > 1
    assert not same(Scenes(32, 6)[0], samples[0])


def test_layouts_come_with_the_scenes_that_follow_them():
    data = open_dataset({"kind": "scenes", "layouts": True, "vary": True, "styles": "flat"}, 32, 5)
    image, caption, layout = data[3]
    scene, expected = scene_at(5, 3, SceneOptions(layouts=True, vary=True, styles=("flat",)))
    assert scene.layout is not None and tuple(layout.tolist()) == scene.layout.vector()
    assert caption == expected and torch.equal(image, torch.from_numpy(render(scene, 32)).permute(2, 0, 1))
    images, captions, layouts = next(batches(data, 4, 1))
    assert images.shape == (4, 3, 32, 32) and len(captions) == 4
    assert torch.equal(layouts, torch.stack([data[i][2] for i in range(4, 8)]))


def test_crops_are_parts_of_larger_renderings():
    data = open_dataset({"kind": "scenes", "crop": 64, "styles": "flat"}, 256, 5)
    image, caption = data[3]
    assert image.shape == (3, 64, 64) and same(data[3], (image, caption))
    whole = render(scene_at(5, 3, SceneOptions(styles=("flat",)))[0], 256)
    places = ((x, y) for x in range(0, 193, 4) for y in range(0, 193, 4))
    part = image.permute(1, 2, 0).numpy().astype(int)
    assert min(abs(part - whole[y : y + 64, x : x + 64]).mean() for x, y in places) < 0.2
