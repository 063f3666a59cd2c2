"""The clients that people use, against a server on the loopback interface."""

import asyncio
import base64
import io
import subprocess

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.helpers import box_mask, noise_image
from tests.server.calls import GENERATIONS, png, same
from tests.server.conftest import served

openai = pytest.importorskip("openai")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Item:UserWarning:pydantic"),  # of litellm's types
    pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning"),  # variations
]

IMAGE = noise_image(32, 32)
MASK = box_mask(IMAGE.size, (0, 0, 16, 32))
ALPHA = IMAGE.convert("RGBA")
ALPHA.putalpha(MASK.point(lambda value: 255 - value))


@pytest.fixture
def sdk(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
        yield client


def fetched(url: str) -> Image.Image:
    return Image.open(io.BytesIO(httpx.get(url).content))


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


# ---- openai


def test_openai_generates(sdk, tiny):
    answer = sdk.images.generate(prompt="a cat", model="dall-e-2", n=2, size="auto", extra_body={"seed": 7})
    expected = tiny.generate("a cat", n=2, seed=7)
    assert all(map(same, [fetched(one.url) for one in answer.data], [result.image for result in expected]))
    answer = sdk.images.generate(
        prompt="a cat", model="gpt-image-1", quality="high", background="auto", moderation="auto", user="me",
        output_format="webp", output_compression=80, extra_body={"seed": 7},
    )  # fmt: skip
    assert decoded(answer.data[0].b64_json).format == "WEBP"
    assert answer.data[0].url is None


def test_openai_generates_asynchronously(url):
    async def main():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
            answers = await asyncio.gather(*(client.images.generate(prompt=f"a cat {i}") for i in range(5)))
        return {answer.data[0].b64_json for answer in answers}

    assert len(asyncio.run(main())) == 5


def test_openai_streams(sdk):
    events = list(
        sdk.images.generate(prompt="a cat", model="gpt-image-1", stream=True, partial_images=2, extra_body={"seed": 7})
    )
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert decoded(events[-1].b64_json).size == (32, 32)
    assert (events[-1].usage.total_tokens, events[-1].size) == (0, "32x32")
    events = list(
        sdk.images.edit(image=png(IMAGE), mask=png(MASK), prompt="a cat", stream=True, partial_images=1, model="tiny")
    )
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "file", "named"])
def test_openai_edits(sdk, tiny, tmp_path, as_list, kind):
    path = tmp_path / "image.png"
    path.write_bytes(png(IMAGE))
    image = {"bytes": png(IMAGE), "file": io.BytesIO(png(IMAGE)), "named": ("photo.png", png(IMAGE), "image/png")}[kind]
    answer = sdk.images.edit(
        image=[image] if as_list else image, mask=png(ALPHA), prompt="a cat", n=2, extra_body={"seed": 7}
    )
    expected = tiny.inpaint(IMAGE, MASK, "a cat", n=2, seed=7)
    assert all(map(same, [decoded(one.b64_json) for one in answer.data], [result.image for result in expected]))
    with path.open("rb") as file:
        answer = sdk.images.edit(image=file, mask=png(ALPHA), prompt="a cat", extra_body={"seed": 7, "steps": 2})
    found = decoded(answer.data[0].b64_json)
    assert (np.asarray(found)[:, 16:] == np.asarray(IMAGE)[:, 16:]).all()


@pytest.mark.skipif(not hasattr(openai.resources.Images, "create_variation"), reason="this openai has no variations")
def test_openai_varies(sdk, tiny):
    answer = sdk.images.create_variation(
        image=png(IMAGE), n=2, size="32x32", response_format="url", extra_body={"seed": 7}
    )
    expected = tiny.vary(IMAGE, n=2, seed=7)
    assert all(map(same, [fetched(one.url) for one in answer.data], [result.image for result in expected]))


def test_openai_lists_models_and_keeps_files(sdk):
    assert [model.id for model in sdk.models.list()] == ["tiny"]
    assert sdk.models.retrieve("tiny").owned_by == "unclip"
    file = sdk.files.create(file=("a.png", png(IMAGE)), purpose="vision")
    assert sdk.files.content(file.id).content == png(IMAGE)
    assert sdk.files.retrieve(file.id).bytes == len(png(IMAGE))
    assert sdk.files.delete(file.id).deleted


def test_openai_raises_its_own_errors(sdk, url, tiny):
    with pytest.raises(openai.BadRequestError) as error:
        sdk.images.generate(prompt="a cat", size="large")
    assert (error.value.param, error.value.type) == ("size", "invalid_request_error")
    assert error.value.request_id.startswith("req_")
    with pytest.raises(openai.NotFoundError):
        sdk.images.generate(prompt="a cat", model="another")
    with pytest.raises(openai.BadRequestError, match="not a readable image"):
        sdk.images.edit(image=b"Example data", prompt="a cat")
    with served(tiny, api_keys=("right",)) as locked:
        with pytest.raises(openai.AuthenticationError) as error:
            openai.OpenAI(base_url=f"{locked}/v1", api_key="wrong").images.generate(prompt="a cat")
        assert error.value.code == "invalid_api_key"
        openai.OpenAI(base_url=f"{locked}/v1", api_key="right").images.generate(prompt="a cat")


# ---- litellm


@pytest.fixture(scope="module")
def litellm(tmp_path_factory):
    import os

    # Otherwise it fetches a price list from the network as it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    found = pytest.importorskip("litellm")
    found.telemetry = False
    return found


@pytest.mark.parametrize("model", ["dall-e-2", "gpt-image-1", "tiny"])
def test_litellm_generates(litellm, url, tiny, model):
    where = {"api_base": f"{url}/v1", "api_key": "unused", "custom_llm_provider": "openai"}
    answer = litellm.image_generation(prompt="a cat", model=model, n=2, extra_body={"seed": 7}, **where)
    found = [one.b64_json and decoded(one.b64_json) or fetched(one.url) for one in answer.data]
    assert all(map(same, found, [result.image for result in tiny.generate("a cat", n=2, seed=7)]))


@pytest.mark.parametrize("model", ["dall-e-2", "gpt-image-1"])
def test_litellm_edits(litellm, url, model):
    where = {"api_base": f"{url}/v1", "api_key": "unused", "custom_llm_provider": "openai"}
    answer = litellm.image_edit(image=png(IMAGE), mask=png(ALPHA), prompt="a cat", model=model, **where)
    one = answer.data[0]
    found = decoded(one.b64_json) if one.b64_json else fetched(one.url)
    assert (np.asarray(found)[:, 16:] == np.asarray(IMAGE)[:, 16:]).all()


def test_litellm_varies(litellm, url):
    where = {"api_base": f"{url}/v1", "api_key": "unused", "custom_llm_provider": "openai"}
    answer = litellm.image_variation(image=png(IMAGE), model="dall-e-2", **where)
    assert fetched(answer.data[0].url).size == (32, 32)


# ---- curl, as in the docs


def test_curl_generates(url):
    command = ["curl", "-sS", f"{url}{GENERATIONS}", "-H", "Content-Type: application/json"]
    try:
        done = subprocess.run([*command, "-d", '{"prompt": "a cat", "seed": 7}'], capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("curl is not installed")
    assert b'"b64_json":"iVBOR' in done.stdout, done.stderr


def test_open_webui_and_librechat_bodies(url):
    """What these send, from their sources: their default sizes are those of OpenAI's models."""
    body = {"model": "dall-e-2", "prompt": "a cat", "n": 1, "size": "512x512", "response_format": "b64_json"}
    assert decoded(httpx.post(url + GENERATIONS, json=body).json()["data"][0]["b64_json"]).size == (512, 512)
    body = {"model": "gpt-image-1", "prompt": "a cat", "quality": "auto", "size": "auto", "n": 1}
    assert httpx.post(url + GENERATIONS, json=body).json()["data"][0]["b64_json"]
    body = {"prompt": "a cat", "size": "32x32", "quality": "low", "response_format": "url"}
    assert ".png" in httpx.post(url + GENERATIONS, json=body).json()["data"][0]["url"]
    files = [("image[]", ("image.png", png(IMAGE), "image/png"))]
    data = {"model": "dall-e-2", "prompt": "a cat", "n": "1", "size": "512x512", "response_format": "b64_json"}
    assert httpx.post(f"{url}/v1/images/edits", files=files, data=data).json()["data"][0]["b64_json"]
