import json
import math

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from unclip.errors import InputError, RequestError
from unclip.images import metadata
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.requests.values import parse_size


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("prompt", "", "say what the image should show"),
        ("prompt", " \n\t", "say what the image should show"),
        ("prompt", None, "must be text"),
        ("prompt", "a \udcff cat", "UTF-8"),
        ("negative_prompt", None, "must be text"),
        ("mode", "paint", "choose from generate"),
        ("n", 0, "from 1"),
        ("n", True, "whole number"),
        ("n", 2.0, "whole number"),
        ("seed", -1, "from 0"),
        ("seed", 2**63, "not 9223372036854775808"),
        ("seed", "7", "not '7'"),
        ("steps", 0, "from 1 to 1000"),
        ("steps", 1001, "from 1 to 1000"),
        ("prior_steps", 0, "from 1 to 1000"),
        ("upsampler_steps", False, "whole number"),
        ("guidance", -0.5, "from 0 to 1000"),
        ("guidance", math.nan, "from 0 to 1000"),
        ("prior_guidance", math.inf, "from 0 to 1000"),
        ("guidance", 1000.5, "not 1000.5"),
        ("guidance", "4", "not '4'"),
        ("sampler", "euler", "ddim"),
        ("sampler", "dimm", "did you mean 'ddim'"),
        ("sampler", ["ddim"], "choose from"),
        ("prior_sampler", "", "dpmpp-2m"),
        ("size", "64by64", "WIDTHxHEIGHT"),
        ("size", "0x64", "size"),
        ("size", (64,), "WIDTHxHEIGHT"),
        ("size", (64, 1 << 20), "size"),
        ("size", True, "WIDTHxHEIGHT"),
        ("prior_best_of", 0, "from 1"),
        ("id", 3, "must be text"),
    ],
)
def test_a_bad_value_is_one_line_with_field_and_fix(field, value, fix):
    with pytest.raises(RequestError) as caught:
        Request(**{"prompt": "a cat", field: value})
    message = str(caught.value)
    assert message.startswith(field)
    assert fix in message
    assert "\n" not in message
    assert isinstance(caught.value, (InputError, ValueError))


def test_a_number_too_long_to_print():
    with pytest.raises(RequestError, match="seed must be"):
        Request(prompt="a cat", seed=10**5000)


def test_zero_is_a_value():
    request = Request(prompt="a cat", seed=0, guidance=0, prior_guidance=0)
    full = request.resolved(seed=5, guidance=3.0, prior_guidance=2.0, steps=20)
    assert (full.seed, full.guidance, full.prior_guidance, full.steps) == (0, 0.0, 0.0, 20)


def test_resolved_refuses_unknown_fields():
    with pytest.raises(RequestError, match="did you mean 'steps'"):
        Request(prompt="a cat").resolved(step=3)


def test_numpy_numbers_become_plain_ones():
    request = Request(prompt="a cat", seed=np.int64(3), guidance=np.float32(2), n=np.int32(2))
    assert json.loads(json.dumps(request.to_dict()))["seed"] == 3
    assert type(request.guidance) is float


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("64x48", (64, 48)),
        ("64", (64, 64)),
        (64, (64, 64)),
        (" 64 X 48 ", (64, 48)),
        ([8, 9], (8, 9)),
        ((8, 9), (8, 9)),
    ],
)
def test_size_forms(given, expected):
    assert parse_size(given) == expected
    assert Request(prompt="a cat", size=given).size == expected


def test_images_have_consecutive_seeds():
    images = list(Request(prompt="a cat", seed=7, n=3, steps=4, id="job").images())
    assert [image.seed for image in images] == [7, 8, 9]
    assert all(image.n == 1 and image.steps == 4 and image.id == "job" for image in images)


def test_images_need_a_seed():
    with pytest.raises(RequestError, match="seed"):
        Request(prompt="a cat").images()


def test_the_last_seed_is_in_range():
    assert list(Request(prompt="a cat", seed=2**63 - 2, n=2).images())[-1].seed == 2**63 - 1
    with pytest.raises(RequestError, match=f"use a seed up to {2**63 - 2}"):
        Request(prompt="a cat", seed=2**63 - 1, n=2)


def test_json_round_trip():
    request = Request(
        prompt="a «cat»", negative_prompt="dog", seed=2**63 - 1, size=(64, 48), guidance=0.0, sampler="ddim"
    )
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    assert request.to_dict()["size"] == "64x48"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "a cat", "guidence": 3}, "did you mean 'guidance'"),
        ({"prompt": "a cat", "zzzzzz": 3}, "known: prompt"),
        ({"n": 3}, "prompt is empty"),
        (["a cat"], "object"),
    ],
)
def test_from_dict_names_the_mistake(fields, says):
    with pytest.raises(RequestError, match=says):
        Request.from_dict(fields)


# ---- edits

EDIT = {"mode": "inpaint", "image": "photo.png", "mask": "mask.png", "prompt": "a cat"}
WIDER = {"mode": "outpaint", "image": "photo.png", "prompt": "a cat"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "a cat", "mask": "mask.png"}, "mask is a field of inpaint, and this request.s mode is generate"),
        (
            {"prompt": "a cat", "image": "a.png"},
            "image is a field of inpaint, outpaint, vary, edit and rec",
        ),
        (EDIT | {"left": 3}, "left is a field of outpaint"),
        (EDIT | {"image": None}, "image is missing"),
        (EDIT | {"image": 7}, "image must be the path of an image"),
        (EDIT | {"size": 64}, "size is not for inpainting"),
        (EDIT | {"mask_mode": "red"}, "mask_mode 'red' is unknown; choose from white, black, alpha"),
        (EDIT | {"keep_style": 1.5}, "keep_style must be a number from 0 to 1"),
        (EDIT | {"prompt": "", "keep_style": 0.5}, "keep_style below 1 mixes"),
        (EDIT | {"resample": 0}, "resample must be a whole number from 1"),
        (EDIT | {"feather": -1}, "feather must be a whole number from 0"),
        (WIDER, "say how far"),
        (WIDER | {"left": 0}, "say how far"),
        (WIDER | {"left": 8, "size": 64}, "say how far"),
        (WIDER | {"left": 8, "anchor": "top"}, "anchor needs size"),
        (WIDER | {"size": 64, "anchor": "middle"}, "anchor 'middle' is unknown"),
        (WIDER | {"left": 8, "left_prompt": 3}, "left_prompt must be text"),
    ],
)
def test_invalid_edits(fields, says):
    with pytest.raises(RequestError, match=says):
        Request(**fields)


@pytest.mark.parametrize("fields", [EDIT, EDIT | {"prompt": "", "feather": 4}, WIDER | {"size": (90, 70)}])
def test_edits_go_through_json(fields):
    request = Request(**fields)
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


# ---- modes of the embedding, and candidates

VARY = {"mode": "vary", "image": "photo.png"}
BETWEEN = {"mode": "interpolate", "sources": ["photo.png", "a cat"]}
TURN = {"mode": "edit", "image": "photo.png", "prompt": "a lion"}
AGAIN = {"mode": "reconstruct", "image": "photo.png"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (VARY | {"image": None}, "image is missing; name the image to vary"),
        (VARY | {"strength": 1.1}, "strength must be a number from 0 to 1"),
        (VARY | {"prior_steps": 3}, "prior_steps is a field of generate, inpaint, outpaint and interpolate"),
        (VARY | {"fit": "squeeze"}, "fit 'squeeze' is unknown; choose from crop, pad"),
        (VARY | {"strength": 0.5, "sampler": "unipc"}, "sampler unipc cannot start from an image's own noise"),
        (VARY | {"strength": 0.5, "steps": 1}, "steps must be at least 2"),
        (BETWEEN | {"sources": ["a cat"]}, "sources must be two or more"),
        (BETWEEN | {"sources": ["a cat", " "]}, "sources is empty"),
        (BETWEEN | {"sources": ["a cat", 7]}, "sources must be the path of an image"),
        (BETWEEN | {"sources": ["a", "b", "c"]}, "weights are missing"),
        (BETWEEN | {"weights": "1,2,3"}, "weights must be one for each of 2 sources"),
        (BETWEEN | {"weights": "0,0"}, "and not all 0"),
        (BETWEEN | {"weights": "1,x"}, "weights must be a number from 0"),
        (BETWEEN | {"weights": "1,1", "fraction": 0.5}, "weights are for one image"),
        (BETWEEN | {"frames": 3, "fraction": 0.5}, "fraction is for one image"),
        (BETWEEN | {"frames": 1}, "frames must be a whole number from 2"),
        (BETWEEN | {"same_noise": 1}, "same_noise must be true or false"),
        (TURN | {"prompt": " "}, "prompt is empty"),
        (TURN | {"theta": -0.1}, "theta must be a number from 0 to 1"),
        (TURN | {"sampler": "ddpm"}, "use ddim"),
        (AGAIN | {"components": "5,0"}, "components must be a whole number from 1"),
        (AGAIN | {"components": []}, "components is empty"),
        ({"prompt": "a cat", "best_of": 2, "n": 3}, "best_of must be at least n"),
        ({"prompt": "a cat", "rank": 1}, "'rank' is not a field of a request"),
        ({"prompt": "a cat", "seed": 2**63 - 2, "best_of": 4}, "use a seed up to"),
        (BETWEEN | {"frames": 3, "best_of": 3}, "ranks single images, not sequences"),
        (EDIT | {"prompt": "", "best_of": 3}, "best_of ranks by how well"),
        ({"prompt": "a cat", "embedding": 3}, "embedding must be the path of a file of `unclip embed`"),
    ],
)
def test_invalid_requests_of_embedding_modes(fields, says):
    with pytest.raises(RequestError, match=says) as caught:
        Request(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        VARY | {"strength": 0.5},
        BETWEEN | {"weights": (1, 2), "same_noise": True},
        TURN | {"frames": 4, "from_prompt": ""},
        AGAIN | {"components": "5, 10"},
        {"embedding": "e.safetensors", "best_of": 4, "n": 2},
    ],
)
def test_requests_of_embedding_modes_go_through_json(fields):
    request = Request(**fields)
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


@pytest.mark.parametrize(
    ("fields", "name", "expected"),
    [
        (BETWEEN | {"frames": 3}, "fraction", [0.0, 0.5, 1.0]),
        (TURN | {"frames": 3, "theta": 0.4}, "theta", [0.0, 0.2, 0.4]),
        (TURN | {"frames": 2}, "theta", [0.0, 0.35]),
        (AGAIN | {"components": [5, 80]}, "components", [(5,), (80,)]),
    ],
)
def test_a_sequence_has_an_image_a_frame_and_one_seed(fields, name, expected):
    request = Request(**fields, seed=3, n=2)
    images = list(request.images())
    assert [image.seed for image in images] == [seed for seed in (3, 4) for _ in expected]
    assert [getattr(image, name) for image in images] == expected * 2
    assert all(image.count == 1 and list(image.images()) == [image] for image in images)
    assert request.count == len(images)


def test_the_images_of_a_ranked_request_share_their_candidates():
    request = Request(prompt="a cat", seed=3, n=2, best_of=4)
    images = list(request.images())
    assert images == [request.replace(n=1)] * 2
    assert images[0].candidates() == request.candidates() == list(Request(prompt="a cat", seed=3, n=4).images())


# ---- old names


@pytest.mark.parametrize(
    ("fields", "old", "new", "value"),
    [
        ({"prompt": "a cat"}, "negative", "negative_prompt", "a dog"),
        (EDIT, "harmonize", "resample", 3),
        (BETWEEN, "share", "fraction", 0.25),
    ],
)
def test_old_field_names_are_read(fields, old, new, value):
    expected = Request(**fields, **{new: value})
    assert Request(**fields, **{old: value}) == Request.from_dict({**fields, old: value}) == expected
    assert Request(**fields).replace(**{old: value}) == expected
    assert old not in expected.to_dict()
    with pytest.raises(RequestError, match=f"{old} is the old name of {new}, and both are given"):
        Request(**fields, **{old: value, new: value})


@pytest.mark.parametrize("name", ["self", "cls", "fields", "changes"])
def test_a_field_from_a_file_may_have_any_name(name):
    with pytest.raises(RequestError, match=f"'{name}' is not a field of a request"):
        Request.from_dict({"prompt": "a cat", name: 2})
    with pytest.raises(RequestError, match="is not a field of a request"):
        Request(prompt="a cat").replace(**{name: 2})


def test_a_record_of_an_earlier_version_is_read():
    old = {**Request(prompt="a cat", seed=3).to_dict(), "negative": "a dog", "rank": None}
    del old["negative_prompt"]
    assert Request.from_dict(old) == Request(prompt="a cat", seed=3, negative_prompt="a dog")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (VARY, False),
        (VARY | {"strength": 1}, False),
        (VARY | {"strength": 0.99}, True),
        (TURN, True),
        (AGAIN, True),
        (AGAIN | {"components": 5}, False),
        (BETWEEN, True),
        (BETWEEN | {"same_noise": True}, False),
        (BETWEEN | {"sources": ["a cat", "e.safetensors"]}, False),
        ({"prompt": "a cat"}, False),
    ],
)
def test_requests_that_invert_an_image(fields, expected):
    assert Request(**fields).inverts is expected


def test_only_the_fields_of_its_mode_are_written():
    assert "mask" not in Request(prompt="a cat").to_dict()
    assert "left" not in Request(**EDIT).to_dict()
    assert Request(**EDIT | {"mask": Image.new("L", (3, 2))}).to_dict()["mask"] == "<an image of 3x2>"


def test_a_request_is_frozen_and_keyword_only():
    with pytest.raises(ValidationError, match="frozen"):
        Request(prompt="a cat").seed = 3
    with pytest.raises(TypeError):
        Request("a cat")


def test_a_result_saves_whole_and_replaces(result: Result, tmp_path):
    path = tmp_path / "new" / "image.png"
    assert result.save(path) == path
    result.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.getpixel((3, 3)) == (255, 105, 180)
    assert Request.from_dict(metadata.read(path)["request"]) == result.request


def test_a_failed_save_leaves_nothing(result: Result, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        result.save(tmp_path / "image.png")
    assert list(tmp_path.iterdir()) == []
