"""Sizes that the model does not generate: made from the nearest one and resized, or refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.helpers import box_mask, noise_image
from tests.server.calls import EDITS, GENERATIONS, VARIATIONS, error_of, events_of, images_of, png, same
from tests.server.conftest import client_of
from unclip.cli.main import main
from unclip.errors import RequestError
from unclip.images.metadata import KEY
from unclip.server.sizes import is_proportional, nearest_size

IMAGE = noise_image(48, 40)
MASK = box_mask(IMAGE.size, (8, 8, 24, 24))


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((64, 64), (32, 32)),  # enlarged as little as possible
        ((24, 24), (32, 32)),  # reduced from the smallest size that is large enough
        ((8, 8), (16, 16)),
        ((1024, 1536), (32, 32)),
        ((16, 17), (32, 32)),
    ],
)
def test_an_image_is_made_at_the_nearest_size_and_resized(client, tiny, asked, made):
    size = f"{asked[0]}x{asked[1]}"
    response = client.post(GENERATIONS, json={"prompt": "a cat", "seed": 5, "size": size})
    [expected] = tiny.generate("a cat", seed=5, size=made)
    [image] = images_of(response)
    assert same(image, ImageOps.fit(expected.image, asked, Image.Resampling.LANCZOS))
    [data] = response.json()["data"]
    assert (data["width"], data["height"]) == asked
    words = f"made as {made[0]}x{made[1]} and resized to {size}"
    assert words in response.json()["notes"]
    assert response.headers["x-generated-size"] == f"{made[0]}x{made[1]}"
    record = json.loads(image.text[KEY])
    assert record["resized"] == size and record["request"]["size"] == f"{made[0]}x{made[1]}"
    assert words in record["notes"]


def test_a_size_of_the_second_upsampler_is_made_where_it_is_asked_for(tiny_second):
    with client_of(tiny_second) as client:
        [model] = client.get("/v1/models").json()["data"]
        assert model["sizes"] == ["16x16", "32x32", "128x128"] and model["default_size"] == "32x32"
        for size, made in (("128x128", 128), ("auto", 32), (None, 32)):
            fields = {"prompt": "a cat", "seed": 5} | ({} if size is None else {"size": size})
            [data] = client.post(GENERATIONS, json=fields).json()["data"]
            assert (data["width"], data["height"]) == (made, made)
    assert nearest_size(tiny_second.model, (100, 100)) == (128, 128)


def test_a_size_of_the_model_is_not_resized(client):
    response = client.post(GENERATIONS, json={"prompt": "a cat", "size": "16x16"})
    assert "x-generated-size" not in response.headers
    assert not any("resized" in note for note in response.json()["notes"])
    assert "resized" not in json.loads(images_of(response)[0].text[KEY])


def test_a_resized_image_is_reproduced(client, tiny_model, tmp_path, capsys):
    fields = {"prompt": "a cat", "seed": 5, "size": "24x40", "response_format": "url"}
    [data] = client.post(GENERATIONS, json=fields).json()["data"]
    (tmp_path / "a.png").write_bytes(client.get(data["url"]).content)
    arguments = ["reproduce", str(tmp_path / "a.png"), "--model", str(tiny_model), "--device", "cpu"]
    assert main([*arguments, "--json", "-o", str(tmp_path / "b.png")]) == 0
    assert json.loads(capsys.readouterr().out)["identical"]
    assert Image.open(tmp_path / "b.png").size == (24, 40)


def test_a_stream_is_resized_too(client):
    response = client.post(GENERATIONS, json={"prompt": "a cat", "size": "40x40", "stream": True})
    [(_, data)] = events_of(response)
    assert (data["size"], data["width"]) == ("40x40", 40)
    assert response.headers["x-generated-size"] == "32x32"
    assert any("resized" in note for note in data["notes"])


def test_variations_and_text_diffs_are_resized(client):
    """Open WebUI sends 512x512 or 1024x1024 with every call, and edits without a mask."""
    files = {"image": ("a.png", png(IMAGE))}
    assert images_of(client.post(VARIATIONS, files=files, data={"size": "64x64"}))[0].size == (64, 64)
    assert images_of(client.post(EDITS, files=files, data={"prompt": "a cat", "size": "64x48"}))[0].size == (64, 48)


def test_an_edit_is_resized_to_a_proportional_size_only(client, tiny):
    files = {"image": ("a.png", png(IMAGE)), "mask": ("m.png", png(MASK))}
    response = client.post(EDITS, files=files, data={"prompt": "a cat", "seed": 3, "size": "96x80"})
    [expected] = tiny.inpaint(IMAGE, MASK, "a cat", seed=3)
    assert same(images_of(response)[0], expected.image.resize((96, 80), Image.Resampling.LANCZOS))
    assert any("byte for byte" in note for note in response.json()["notes"])
    response = client.post(EDITS, files=files, data={"prompt": "a cat", "seed": 3, "size": "1024x1024"})
    assert same(images_of(response)[0], expected.image)
    assert any("size 1024x1024 has no effect" in note for note in response.json()["notes"])


def test_transparent_margins_are_filled_whatever_the_size(client, tiny):
    padded = Image.new("RGBA", (64, 40), (0, 0, 0, 0))
    padded.paste(IMAGE, (16, 0))
    files = {"image": ("a.png", png(padded))}
    [expected] = tiny.outpaint(IMAGE, "a cat", left=16, seed=3)
    for size in ("1024x1024", "auto", "64x40"):
        response = client.post(EDITS, files=files, data={"prompt": "a cat", "seed": 3, "size": size})
        [image] = images_of(response)
        assert same(image, expected.image)
        assert (np.asarray(image)[:, 16:] == np.asarray(IMAGE)).all()
    response = client.post(EDITS, files=files, data={"prompt": "a cat", "seed": 3, "size": "128x80"})
    assert images_of(response)[0].size == (128, 80)


def test_a_server_of_exact_sizes_refuses_others(tiny):
    with client_of(tiny, sizes="exact") as client:
        error = error_of(client.post(GENERATIONS, json={"prompt": "a", "size": "1024x1536"}))
        assert error["message"] == "'1024x1536' is not one of ['16x16', '32x32'] - 'size'"
        assert error["param"] == "size"
        files = {"image": ("a.png", png(IMAGE)), "mask": ("m.png", png(MASK))}
        error = error_of(client.post(EDITS, files=files, data={"prompt": "a", "size": "96x80"}))
        assert "image's own, 48x40" in error["message"]
        assert client.post(GENERATIONS, json={"prompt": "a", "size": "16x16"}).status_code == 200


def test_an_unknown_policy_is_refused(capsys):
    assert main(["serve", "--sizes", "closest"]) == 2
    assert "nearest, exact" in capsys.readouterr().err


class AnySize:
    """A model whose sides are multiples of 64, as those of latent diffusion are."""

    decoder = SimpleNamespace(any_size=True)
    sizes = ((512, 512),)

    def check_size(self, size):
        if size[0] % 64 or size[1] % 64:
            raise RequestError("no multiple")


@pytest.mark.parametrize(
    ("asked", "made"),
    [((512, 768), (512, 768)), ((1000, 1000), (1024, 1024)), ((500, 64), (512, 64)), ((8191, 8191), (8192, 8192))],
)
def test_a_model_of_any_size_makes_the_next_multiple(asked, made):
    assert nearest_size(AnySize(), asked) == made  # pyright: ignore[reportArgumentType]


def test_proportions_may_differ_by_a_pixel():
    assert is_proportional((600, 400), (1024, 683))
    assert not is_proportional((600, 400), (1024, 700))
