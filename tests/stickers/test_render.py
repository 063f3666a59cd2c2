"""Rendering of scenes."""

import numpy as np
import pytest

from tests.stickers.conftest import CaptionedScenes
from unclip.errors import DataError
from unclip.stickers.compose import SceneOptions
from unclip.stickers.render import CROP_STEP, random_crop, render, render_crop
from unclip.stickers.scene import BACKGROUNDS, PlacedObject, Scene
from unclip.stickers.sprites import STYLES
from unclip.stickers.stream import scene_at


def foreground(scene: Scene, pixels: int) -> np.ndarray:
    """Return where the rendering differs from its background: h w, bool."""
    difference = render(scene, pixels).astype(int) - np.array(BACKGROUNDS[scene.background])
    return np.abs(difference).max(axis=-1) > 0


@pytest.mark.parametrize("pixels", [64, 256])
def test_objects_are_rendered_at_their_positions(scenes: CaptionedScenes, pixels: int) -> None:
    for scene, _ in scenes[:25]:
        image = render(scene, pixels)
        assert image.shape == (pixels, pixels, 3) and image.dtype == np.uint8
        changed = foreground(scene, pixels)
        ys, xs = np.mgrid[:pixels, :pixels] + 0.5
        inside = np.zeros_like(changed)
        for placed in scene.objects:
            reach = placed.size * pixels / 2 + 1
            box = (abs(xs - placed.x * pixels) <= reach) & (abs(ys - placed.y * pixels) <= reach)
            assert (changed & box).sum() > 0.05 * box.sum(), placed
            inside |= box
        assert not (changed & ~inside).any()


def test_the_background_has_the_named_colour() -> None:
    for colour, rgb in BACKGROUNDS.items():
        image = render(Scene((PlacedObject("apple", 0.5, 0.5, 0.6),), colour, "single"), 64)
        assert all(tuple(image[y, x]) == rgb for y in (0, -1) for x in (0, -1))
    values = np.array(list(BACKGROUNDS.values()), float)
    distances = np.linalg.norm(values[:, None] - values, axis=-1) + 1e9 * np.eye(len(values))
    assert distances.min() > 50  # colours can be told apart


def test_renderings_agree_across_sizes() -> None:
    """256 px reduced to 64 px is nearly the rendering at 64 px: the upsampler learns from such pairs."""
    for i in range(10):
        scene, _ = scene_at(9, i)
        large = render(scene, 256).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
        assert np.abs(large - render(scene, 64)).mean() < 6


def test_a_crop_is_a_part_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    options = SceneOptions(vary=True, styles=STYLES)
    for i in range(12):
        scene, _ = scene_at(3, i, options)
        left, top = random_crop(rng, scene, 512, 128)
        assert left % CROP_STEP == 0 and top % CROP_STEP == 0
        whole = render(scene, 512)[top : top + 128, left : left + 128].astype(int)
        crop = render_crop(scene, 512, (left, top), 128)
        assert np.abs(whole - crop).mean() < 0.2  # edges are antialiased anew
        assert np.ptp(crop.reshape(-1, 3), axis=0).max() > 20  # it shows a part of an object
    with pytest.raises(DataError, match="larger than the image"):
        render_crop(scene, 64, (0, 0), 128)


def test_an_unknown_object_is_refused() -> None:
    with pytest.raises(DataError, match=r"no noun 'wizard'.*sprites\.json"):
        render(Scene((PlacedObject("wizard", 0.5, 0.5, 0.5),), "pink", "single"), 64)
