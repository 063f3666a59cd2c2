"""A file of `unclip embed` as the field `embedding` of a call."""

import base64
import io
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save

from tests.helpers import noise_image
from tests.server.calls import EDITS, GENERATIONS, error_of, images_of, png, same
from unclip.images.metadata import KEY
from unclip.requests.sources import EmbeddingBytes


@pytest.fixture(scope="module")
def embedding(tiny, tmp_path_factory):
    return tiny.save_embedding(tmp_path_factory.mktemp("embeddings") / "dog.safetensors", "a dog", seed=3)


def data_url(data: bytes) -> str:
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


@pytest.mark.parametrize("form", [True, False])
def test_an_embedding_guides_an_image(client, tiny, embedding, form):
    data = embedding.read_bytes()
    [expected] = tiny.generate(embedding=str(embedding), seed=5)
    if form:
        response = client.post(GENERATIONS, files={"embedding": ("a.safetensors", data)}, data={"seed": "5"})
    else:
        response = client.post(GENERATIONS, json={"embedding": data_url(data), "seed": 5})
    [image] = images_of(response)
    assert same(image, expected.image)
    record = json.loads(image.text[KEY])
    assert record["request"]["embedding"] == "<embedding>"
    assert record["inputs"] == expected.inputs  # the hash of the file


def test_an_embedding_is_the_target_of_a_text_diff(client, tiny, embedding):
    image = noise_image(32, 32)
    files = {"image": ("a.png", png(image)), "embedding": ("e", embedding.read_bytes())}
    [expected] = tiny.edit(image, embedding=str(embedding), theta=0.5, seed=5)
    assert same(images_of(client.post(EDITS, files=files, data={"seed": "5", "theta": "0.5"}))[0], expected.image)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "safetensors"),
        (b"\xff" * 100, "safetensors"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "safetensors"),
        (png(Image.new("RGB", (4, 4))), "safetensors"),
        (save({"image_embed": torch.zeros(3, 4), "probe": torch.zeros(4)}), "holds no embedding"),
        (save({"image_embed": torch.full((4,), float("nan")), "probe": torch.zeros(4)}), "holds no embedding"),
        (save({"image_embed": torch.ones(4), "probe": torch.ones(4)}), "CLIP of another model"),
    ],
)
def test_what_is_no_embedding_of_this_model_is_refused(client, data, words):
    response = client.post(GENERATIONS, files={"embedding": ("a", data)}, data={"seed": "5"})
    error = error_of(response)
    assert words in error["message"] and error["param"] == "embedding"


@pytest.mark.parametrize("value", ["/etc/passwd", "dog.safetensors", "http://127.0.0.1:1/a", 5])
def test_no_path_is_read_as_an_embedding(client, value):
    assert error_of(client.post(GENERATIONS, json={"embedding": value}))["param"] == "embedding"


def test_several_embeddings_are_refused(client, embedding):
    files = [("embedding", ("a", embedding.read_bytes()))] * 2
    assert "send one" in error_of(client.post(GENERATIONS, files=files))["message"]


def test_python_takes_the_contents_of_a_file_too(tiny, embedding):
    data = EmbeddingBytes(embedding.read_bytes())
    assert load(data.data).keys() == {"image_embed", "probe"}
    [found], [expected] = (tiny.generate(embedding=each, seed=5) for each in (data, embedding))
    assert same(found.image, expected.image)
    assert Image.open(io.BytesIO(found.to_bytes())).size == found.image.size
