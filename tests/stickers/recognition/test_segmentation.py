"""The segmentation of images into objects."""

from collections import Counter

from tests.stickers.recognition.samples import degraded, pair_of
from unclip.stickers.recognition.checker import check, find_objects
from unclip.stickers.render import render
from unclip.stickers.scene import PlacedObject, Scene


def test_touching_objects_are_told_apart() -> None:
    image = render(pair_of("left of", (0.3, 0.5), (0.66, 0.5)), 64)
    assert Counter(each.name for each in find_objects(image)) == {"penguin": 1, "pizza": 1}


def test_two_objects_that_look_like_a_third_are_two() -> None:
    gears = Scene(
        (PlacedObject("gear", 0.25, 0.5, 0.38), PlacedObject("gear", 0.7, 0.5, 0.38)), "black", "count", count=2
    )
    assert check(degraded(render(gears, 64)), gears).all  # together they resemble glasses


def test_a_speck_is_ignored() -> None:
    dog = Scene((PlacedObject("dog", 0.5, 0.5, 0.6),), "pink", "single")
    image = render(dog, 64)
    image[1:3, 1:3] = 0
    assert check(image, dog).all
