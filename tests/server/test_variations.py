"""POST /v1/images/variations: variations, reconstructions and interpolations."""

import pytest

from tests.helpers import noise_image
from tests.server.calls import VARIATIONS, error_of, images_of, png, same

IMAGE, OTHER = noise_image(40, 40), noise_image(32, 48)


def post(client, *images, **fields):
    return client.post(VARIATIONS, files=[("image", ("a.png", png(image))) for image in images], data=fields)


def test_variations_are_those_of_the_pipeline(client, tiny):
    response = client.post(VARIATIONS, files={"image": ("a.png", png(IMAGE))}, data={"n": "2", "seed": "3"})
    expected = tiny.vary(IMAGE, n=2, seed=3)
    assert all(map(same, images_of(response), [result.image for result in expected]))


def test_fields_of_a_variation_and_a_part_of_the_image(client, tiny):
    response = post(client, IMAGE, seed="3", strength="0.5", size="16x16", prompt="a cat", frame="4,4,20,20")
    expected = tiny.vary(IMAGE.crop((4, 4, 24, 24)), "a cat", seed=3, strength=0.5, size=16)
    assert same(images_of(response)[0], expected[0].image)


def test_reconstructions(client, tiny):
    response = post(client, IMAGE, mode="reconstruct", seed="3")
    assert same(images_of(response)[0], tiny.reconstruct(IMAGE, seed=3)[0].image)


def test_several_images_and_texts_are_interpolated(client, tiny):
    response = post(client, IMAGE, OTHER, seed="3", frames="3")
    expected = tiny.interpolate(IMAGE, OTHER, seed=3, frames=3)
    assert all(map(same, images_of(response), [result.image for result in expected]))
    response = post(client, IMAGE, sources="a cat. On a dog", seed="3", weights="1,2")
    error_of(response)  # the text has a suffix, and could be the name of a file
    response = post(client, IMAGE, sources="a cat|a dog", seed="3", weights="1,2,1")
    expected = tiny.mix((IMAGE, "a cat", "a dog"), (1, 2, 1), seed=3)
    assert same(images_of(response)[0], expected[0].image)
    response = client.post(VARIATIONS, json={"sources": ["a cat", "a dog"], "seed": 3, "fraction": 0.25})
    expected = tiny.interpolate("a cat", "a dog", seed=3, frames=None, fraction=0.25)
    assert same(images_of(response)[0], expected[0].image)


@pytest.mark.parametrize(
    ("images", "fields", "param", "words"),
    [
        ([], {"seed": "1"}, "image", "Missing required parameter: 'image'"),
        ([IMAGE, OTHER], {"mode": "vary"}, "image", "one image at a time"),
        ([IMAGE], {"sources": "a cat", "mode": "vary"}, "sources", "sources is a field of interpolate"),
        ([IMAGE], {"mode": "interpolate"}, "sources", "two or more"),
        ([IMAGE], {"sources": "picture.png"}, "sources", "the name of a file"),
        ([IMAGE], {"sources": "a.safetensors"}, "sources", "the name of a file"),
        ([IMAGE], {"strength": "2"}, "strength", "strength"),
        ([IMAGE], {"left": "2"}, "left", "Unknown parameter: 'left'"),
        ([IMAGE], {"mask": "2"}, "mask", "Unknown parameter: 'mask'"),
        ([IMAGE, OTHER], {"frames": "11"}, "frames", "at most 10"),
        ([IMAGE], {"components": "5"}, None, "principal components"),
        ([IMAGE, OTHER], {"frame": "0,0,8,8"}, "frame", "one image"),
        ([IMAGE], {"sources": "|".join("abcdefghijklmnopqrst"), "weights": "1"}, "sources", "At most 17"),
    ],
)
def test_a_wrong_variation_is_refused(client, images, fields, param, words):
    error = error_of(post(client, *images, **fields))
    assert words in error["message"]
    assert error["param"] == param
