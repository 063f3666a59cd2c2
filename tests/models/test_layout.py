"""Layouts as conditioning: the same numbers for a seed, and coordinates that follow the object."""

import torch

from unclip.models.layout import GRID, LAYOUT_SIZE, MAP_CHANNELS, layout_map, random_layout
from unclip.stickers.compose import SceneOptions
from unclip.stickers.scene import Layout, PlacedObject
from unclip.stickers.stream import scene_at


def test_random_layouts_are_functions_of_the_seed_within_the_spread() -> None:
    layouts = [random_layout(seed, 1) for seed in range(200)]
    assert layouts == [random_layout(seed, 1) for seed in range(200)]
    assert len(set(layouts)) > 60
    assert all(len(layout) == LAYOUT_SIZE for layout in layouts)
    assert {layout[2] for layout in layouts} == {-0.5, 0.0, 0.5}
    assert {layout[4] for layout in layouts} == {0.0, 1.0}  # none is smaller than usual
    assert {layout[2] for layout in (random_layout(seed, 0) for seed in range(20))} == {0.0}


def test_a_random_layout_is_one_that_scenes_have() -> None:
    drawn = {
        scene.layout.vector()
        for i in range(2000)
        if (scene := scene_at(1, i, SceneOptions(vary=True, spread=1))[0]).layout
    }
    assert {random_layout(seed, 1) for seed in range(300)} <= drawn


def test_an_open_layout_leaves_only_the_place_in_the_image() -> None:
    channels = layout_map(torch.zeros(2, LAYOUT_SIZE), 16)
    assert channels.shape == (2, MAP_CHANNELS, 16, 16)
    assert not channels[:, 2:].any()
    assert channels[0, 0, 0, 0] == -channels[0, 0, 0, -1] == -15 / 16  # x runs across
    assert torch.equal(channels[:, 1], channels[:, 0].mT)


def test_an_object_has_the_same_coordinates_wherever_it_is() -> None:
    def at_corner(placed: PlacedObject, layout: Layout) -> torch.Tensor:
        channels = layout_map(torch.tensor([layout.vector()]), 64)[0, 3:5]  # u, v
        left, top = (round((centre - placed.size / 2) * 64) for centre in (placed.x, placed.y))
        right = round((placed.x + placed.size / 2) * 64) - 1
        return channels[:, top, right if layout.mirrored else left]

    seen = []
    for i in range(300):
        scene, _ = scene_at(3, i, SceneOptions(singles=1, spread=2, vary=True, nouns=("cat", "dog")))
        assert scene.layout is not None
        if scene.size_word is None and scene.layout.resize == 0:
            seen.append(at_corner(scene.objects[0], scene.layout))
    assert len(seen) > 20
    found = torch.stack(seen)
    assert (found - found[0]).abs().max() < GRID  # a grid step is 1/8 of the map's unit
