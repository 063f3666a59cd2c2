"""POST /v1/images/generations: the images of the command line, in the forms that clients ask for."""

import io
import json
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.helpers import difference
from tests.server.calls import GENERATIONS, error_of, events_of, images_of, same
from unclip.images.metadata import KEY


def test_images_are_those_of_the_pipeline(client, tiny):
    fields = {"prompt": "a cat", "n": 3, "seed": 7, "steps": 2, "guidance": 3, "negative_prompt": "a dog"}
    response = client.post(GENERATIONS, json=fields)
    expected = tiny.generate(fields.pop("prompt"), **fields)
    assert all(map(same, images_of(response), [result.image for result in expected]))
    assert [one["seed"] for one in response.json()["data"]] == [7, 8, 9]


def test_the_png_has_the_record_of_the_pipeline(client, tiny):
    data = client.get(client.post(GENERATIONS, json={"prompt": "a cat", "seed": 3}).json()["data"][0]["url"]).content
    [expected] = tiny.generate("a cat", seed=3)
    assert data == expected.to_bytes("png")
    assert json.loads(Image.open(io.BytesIO(data)).text[KEY])["request"]["seed"] == 3


def test_the_best_candidates_are_those_of_the_pipeline(client, tiny):
    response = client.post(GENERATIONS, json={"prompt": "a cat", "n": 2, "best_of": 5, "seed": 1})
    expected = tiny.generate("a cat", n=2, best_of=5, seed=1)
    assert all(map(same, images_of(response), [result.image for result in expected]))
    assert [one["seed"] for one in response.json()["data"]] == [result.seed for result in expected]


def test_a_form_means_the_same_as_json(client):
    fields = {"prompt": "12", "seed": 5, "n": 2, "steps": 2, "guidance": 1.5, "size": "16x16"}
    form = {name: str(value) for name, value in fields.items()}
    assert (
        client.post(GENERATIONS, data=form).json()["data"][1]["b64_json"]
        == (client.post(GENERATIONS, json=fields).json()["data"][1]["b64_json"])
    )


def test_null_empty_and_auto_are_the_defaults(client):
    names = ("n", "size", "seed", "quality", "style", "user", "response_format", "output_format", "background", "steps")
    nulls = client.post(GENERATIONS, json={"prompt": "a cat", **dict.fromkeys(names)})
    assert images_of(nulls)[0].size == (32, 32)
    assert client.post(GENERATIONS, json={"prompt": "a cat", **dict.fromkeys(names, "")}).status_code == 200
    autos = {"size": "auto", "quality": "auto", "background": "auto", "moderation": "auto"}
    response = client.post(GENERATIONS, json={"prompt": "a cat", **autos})
    assert images_of(response)[0].size == (32, 32)
    assert not any("auto" in note for note in response.json()["notes"])


def test_without_a_seed_each_image_is_another_one(client):
    one, other = (client.post(GENERATIONS, json={"prompt": "a cat"}).json()["data"][0] for _ in range(2))
    assert one["seed"] != other["seed"]


@pytest.mark.parametrize(
    ("model", "given", "keys"),
    [
        ("dall-e-2", None, {"url"}),
        ("dall-e-3", "b64_json", {"b64_json"}),
        ("gpt-image-1", None, {"b64_json"}),
        ("gpt-image-2.5-flare", "url", {"url"}),
        ("chatgpt-image-latest", None, {"b64_json"}),
        ("tiny", None, {"url", "b64_json"}),
        (None, None, {"url", "b64_json"}),
        (None, "url", {"url"}),
    ],
)
def test_response_format_by_model_and_wish(client, model, given, keys):
    response = client.post(GENERATIONS, json={"prompt": "a cat", "model": model, "response_format": given})
    assert response.json()["data"][0].keys() & {"url", "b64_json"} == keys
    assert response.json()["model"] == "tiny"


@pytest.mark.parametrize(("format", "pillow"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_output_format(client, format, pillow):
    response = client.post(GENERATIONS, json={"prompt": "a cat", "output_format": format})
    assert images_of(response)[0].format == pillow
    file = client.get(response.json()["data"][0]["url"])
    assert file.headers["content-type"] == f"image/{format}"
    assert Image.open(io.BytesIO(file.content)).format == pillow


def test_openais_default_compression_has_no_effect_on_png(client):
    fields = {"prompt": "a cat", "output_format": "png", "output_compression": 100}
    assert images_of(client.post(GENERATIONS, json=fields))[0].format == "PNG"


def test_output_compression_is_the_quality(client):
    sizes = [
        len(client.post(GENERATIONS, json={"prompt": "a cat", "seed": 1, **fields}).json()["data"][0]["b64_json"])
        for fields in (
            {"output_format": "jpeg", "output_compression": 5},
            {"output_format": "jpeg"},
            {"output_format": "jpeg", "output_compression": 100},
        )
    ]
    assert sizes == sorted(set(sizes))


def test_a_field_without_effect_gives_a_note(client):
    fields = {"prompt": "a cat", "quality": "hd", "style": "vivid", "moderation": "low", "partial_images": 2}
    notes = "\n".join(client.post(GENERATIONS, json=fields).json()["notes"])
    assert all(name in notes for name in ("quality", "style", "moderation", "partial_images"))


def test_notes_of_the_model_are_passed_on(client):
    assert "zebra" in "\n".join(client.post(GENERATIONS, json={"prompt": "a zebra"}).json()["notes"])


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "prompt", "Missing required parameter: 'prompt'"),
        ({"prompt": ""}, "prompt", "Missing"),
        ({"prompt": " "}, "prompt", "empty"),
        ({"prompt": 3}, "prompt", "must be text"),
        ({"prompt": "x" * 32_001}, "prompt", "32000"),
        ({"prompt": "\ud800"}, "prompt", "Unicode"),
        ({"prompt": "a", "n": 0}, "n", "from 1"),
        ({"prompt": "a", "n": 11}, "n", "at most 10"),
        ({"prompt": "a", "best_of": 11}, "best_of", "at most 10"),
        ({"prompt": "a", "n": 1.5}, "n", "whole number"),
        ({"prompt": "a", "n": "many"}, "n", "whole number"),
        ({"prompt": "a", "size": "big"}, "size", "WIDTHxHEIGHT"),
        ({"prompt": "a", "size": "8192x8192"}, "size", "pixels"),
        ({"prompt": "a", "quality": "ultra"}, "quality", "'ultra' is not one of ['auto', 'standard', "),
        ({"prompt": "a", "response_format": "png"}, "response_format", "is not one of ['url', 'b64_json']"),
        ({"prompt": "a", "output_format": "gif"}, "output_format", "'gif' is not one of ['png', 'jpeg', 'webp']"),
        ({"prompt": "a", "output_compression": 50}, "output_compression", "jpeg and webp"),
        ({"prompt": "a", "output_format": "webp", "output_compression": 101}, "output_compression", "100"),
        ({"prompt": "a", "background": "transparent"}, "background", "opaque"),
        ({"prompt": "a", "partial_images": 11}, "partial_images", "10"),
        ({"prompt": "a", "stream": "perhaps"}, "stream", "stream"),
        ({"prompt": "a", "seed": -1}, "seed", "seed must be a whole number"),
        ({"prompt": "a", "steps": 1001}, "steps", "1000"),
        ({"prompt": "a", "guidance": float("1e9")}, "guidance", "guidance"),
        ({"prompt": "a", "sampler": "ddmi"}, "sampler", "ddim"),
        ({"prompt": "a", "mode": "inpaint"}, "mode", "is not one of ['generate']"),
        ({"prompt": "a", "promt": "b"}, "promt", "did you mean 'prompt'?"),
        ({"prompt": "a", "image": "data:image/png;base64,AA=="}, "image", "Unknown parameter: 'image'"),
        ({"prompt": "a", "embedding": "/etc/passwd"}, "embedding", "file"),
        ({"prompt": "(a cat:1.3)"}, "prompt", "weights are not read"),
        ({"prompt": "a", "negative": "b", "negative_prompt": "c"}, "negative", "old name"),
    ],
)
def test_a_wrong_field_is_named(client, fields, param, words):
    error = error_of(client.post(GENERATIONS, content=json.dumps(fields).encode()))
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "object"),
        (b'"a cat"', "object"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b'{"prompt": "a", "guidance": NaN}', "NaN"),
        (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "JSON"),
        (b"[" * 9_000, "nested"),
        (b'{"prompt": "a", "sources": ' + b"[" * 200 + b"]" * 200 + b"}", "nested"),
        (b'{"prompt": "a", "guidance": 1e999}', "finite"),
        (b'{"prompt": [' + b"{}," * 1_000_000 + b"{}]}", "too many values"),
    ],
)
def test_a_damaged_body_is_a_wrong_request(client, body, words):
    error = error_of(client.post(GENERATIONS, content=body, headers={"content-type": "application/json"}))
    assert words in error["message"]


def test_another_content_type_is_refused(client):
    assert (
        "text/xml"
        in error_of(client.post(GENERATIONS, content=b"<a/>", headers={"content-type": "text/xml"}), 415)["message"]
    )


def test_an_unknown_model_and_an_unknown_path(client):
    error = error_of(client.post(GENERATIONS, json={"prompt": "a", "model": "tinny"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert "did you mean 'tiny'?" in error["message"]
    assert "below /v1" in error_of(client.post("/images/generations", json={}), 404)["message"]
    assert "/v1/chat" in error_of(client.post("/v1/chat/completions", json={}), 404)["message"]
    assert "GET" in error_of(client.get(GENERATIONS), 405)["message"]


def test_a_stream_has_steps_partial_images_and_the_image(client, tiny):
    fields = {"prompt": "a cat", "seed": 4, "n": 2, "stream": True, "partial_images": 2, "progress": True}
    events = events_of(client.post(GENERATIONS, json=fields))
    assert all(data["type"] == kind for kind, data in events)
    partial = [data for kind, data in events if kind == "image_generation.partial_image"]
    assert sorted((one["index"], one["partial_image_index"]) for one in partial) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    steps = [(data["stage"], data["done"]) for kind, data in events if kind == "unclip.step"]
    assert ("prior", 3) in steps and ("decoder", 0) in steps and ("upsampler", 2) in steps
    done = [data for kind, data in events if kind == "image_generation.completed"]
    assert [data["index"] for data in done] == [0, 1]
    expected = [result.to_bytes("png") for result in tiny.generate("a cat", seed=4, n=2)]
    assert [client.get(data["url"]).content for data in done] == expected
    assert events[-1][0] == "image_generation.completed"


def test_a_stream_has_nothing_that_was_not_asked_for(client):
    events = events_of(client.post(GENERATIONS, json={"prompt": "a cat", "stream": True}))
    assert [kind for kind, _ in events] == ["image_generation.completed"]


def test_partial_images_are_of_their_own_image(client):
    """Two images with one seed in one micro-batch would be mixed up, as steps report images by their seeds."""
    import threading

    found = {}

    def call(prompt):
        fields = {"prompt": prompt, "seed": 1, "stream": True, "partial_images": 1}
        found[prompt] = events_of(client.post(GENERATIONS, json=fields))

    alone = {}
    for prompt in ("a cat", "a red dog"):
        call(prompt)
        alone[prompt] = found[prompt][0][1]["b64_json"]
    threads = [threading.Thread(target=call, args=(prompt,)) for prompt in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {prompt: events[0][1]["b64_json"] for prompt, events in found.items()} == alone


def test_images_do_not_depend_on_the_calls_that_they_share_a_micro_batch_with(client, tiny):
    from concurrent.futures import ThreadPoolExecutor

    def call(seed):
        return client.post(GENERATIONS, json={"prompt": f"a cat {seed}", "seed": seed, "n": 2})

    with ThreadPoolExecutor(6) as pool:
        found = [images_of(response) for response in pool.map(call, range(6))]
    for seed, images in enumerate(found):
        expected = tiny.generate(f"a cat {seed}", seed=seed, n=2)
        assert max(map(difference, images, expected)) <= 1


def test_models_are_listed(client):
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["sizes"]) == ("tiny", "model", ["16x16", "32x32"])
    assert client.get("/v1/models/tiny").json() == model
    assert client.get("/v1/models/dall-e-2").json()["id"] == "dall-e-2"
    assert error_of(client.get("/v1/models/other"), 404)["code"] == "model_not_found"


def test_the_schema_lists_the_fields_of_a_request(client):
    paths = client.get("/openapi.json").json()["paths"]
    body = paths[GENERATIONS]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"prompt", "n", "size", "seed", "steps", "response_format"} <= body.keys()
    assert "theta" not in body and "embedding" in body
    body = paths["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"image", "mask", "left", "theta", "feather"} <= body.keys()


def test_the_server_says_its_limits_and_counts(client):
    assert client.get("/v1/server").json()["max_images"] == 10
    assert client.get("/healthz").json() == {"status": "ok"}
    for path in (
        "/",
        "/healthz",
        urlsplit(client.post(GENERATIONS, json={"prompt": "a"}).json()["data"][0]["url"]).path,
    ):
        assert client.head(path).status_code == 200
    client.post(GENERATIONS, json={"prompt": "a cat"})
    text = client.get("/metrics").text
    assert 'unclip_images_total{mode="generate",model="tiny",outcome="done"}' in text
    assert 'unclip_http_requests_total{path="/v1/images/generations",status="200"}' in text
