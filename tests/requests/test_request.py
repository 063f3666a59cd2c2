import json

import pytest
from PIL import Image
from pydantic import ValidationError

from unclip.errors import RequestError
from unclip.requests.request import Request


def test_zero_is_kept_as_a_value():
    request = Request(prompt="a cat", seed=0, guidance=0, prior_guidance=0)
    full = request.resolved(seed=5, guidance=3.0, prior_guidance=2.0, steps=20)
    assert (full.seed, full.guidance, full.prior_guidance, full.steps) == (0, 0.0, 0.0, 20)


def test_resolved_refuses_unknown_fields():
    with pytest.raises(RequestError, match="did you mean 'steps'"):
        Request(prompt="a cat").resolved(step=3)


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


# ---- edits

EDIT = {"mode": "inpaint", "image": "photo.png", "mask": "mask.png", "prompt": "a cat"}
WIDER = {"mode": "outpaint", "image": "photo.png", "prompt": "a cat"}


@pytest.mark.parametrize("fields", [EDIT, EDIT | {"prompt": "", "feather": 4}, WIDER | {"size": (90, 70)}])
def test_edits_go_through_json(fields):
    request = Request(**fields)
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request


# ---- embedding modes and candidates

VARY = {"mode": "vary", "image": "photo.png"}
BETWEEN = {"mode": "interpolate", "sources": ["photo.png", "a cat"]}
TURN = {"mode": "edit", "image": "photo.png", "prompt": "a lion"}
AGAIN = {"mode": "reconstruct", "image": "photo.png"}


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
def test_a_sequence_has_one_image_per_frame_with_one_seed(fields, name, expected):
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


def test_a_record_of_an_earlier_version_is_read():
    old = {**Request(prompt="a cat", seed=3).to_dict(), "negative": "a dog", "rank": None}
    del old["negative_prompt"]
    assert Request.from_dict(old) == Request(prompt="a cat", seed=3, negative_prompt="a dog")


def test_only_the_fields_of_its_mode_are_written():
    assert "mask" not in Request(prompt="a cat").to_dict()
    assert "left" not in Request(**EDIT).to_dict()
    assert Request(**EDIT | {"mask": Image.new("L", (3, 2))}).to_dict()["mask"] == "<an image of 3x2>"


def test_a_request_is_frozen_and_keyword_only():
    with pytest.raises(ValidationError, match="frozen"):
        Request(prompt="a cat").seed = 3
    with pytest.raises(TypeError):
        Request("a cat")
