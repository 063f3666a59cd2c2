"""The matching of a piece of an image with the sprites."""

import numpy as np
import pytest

from unclip.stickers.recognition.matching import bounding_box, foreground_mask, load_templates, match_sprites, soften
from unclip.stickers.render import render
from unclip.stickers.scene import BACKGROUNDS, PlacedObject, Scene


@pytest.mark.parametrize("name", ["dog", "apple", "guitar", "rocket"])
@pytest.mark.parametrize("background", ["pink", "black"])
def test_a_rendered_sprite_matches_best(name: str, background: str) -> None:
    image = render(Scene((PlacedObject(name, 0.45, 0.5, 0.6),), background, "single"), 64)
    difference = soften((image.astype(np.float32) - np.array(BACKGROUNDS[background], np.float32)) / 255)
    box = bounding_box(foreground_mask(difference))
    assert box is not None
    best, *others = match_sprites(difference, box, load_templates(background))
    assert best.name == name and best.score > 0.95
    assert (best.x / 64, best.y / 64) == pytest.approx((0.45, 0.5), abs=0.03)
    assert [match.score for match in others] == sorted((match.score for match in others), reverse=True)


def test_the_bounding_box_of_a_mask() -> None:
    mask = np.zeros((8, 9), bool)
    assert bounding_box(mask) is None
    mask[2, 3] = mask[5, 4] = True
    assert bounding_box(mask) == (3, 2, 5, 6)
