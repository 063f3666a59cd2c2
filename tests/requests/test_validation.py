import pytest

from unclip.errors import RequestError
from unclip.requests.request import Request

EDIT = {"mode": "inpaint", "image": "photo.png", "mask": "mask.png", "prompt": "a cat"}


WIDER = {"mode": "outpaint", "image": "photo.png", "prompt": "a cat"}


VARY = {"mode": "vary", "image": "photo.png"}


BETWEEN = {"mode": "interpolate", "sources": ["photo.png", "a cat"]}


TURN = {"mode": "edit", "image": "photo.png", "prompt": "a lion"}


AGAIN = {"mode": "reconstruct", "image": "photo.png"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"prompt": "a cat", "guidence": 3}, "did you mean 'guidance'"),
        ({"prompt": "a cat", "zzzzzz": 3}, "known: prompt"),
        ({"n": 3}, "prompt is empty"),
        (["a cat"], "object"),
    ],
)
def test_from_dict_errors_name_the_mistake(fields, says):
    with pytest.raises(RequestError, match=says):
        Request.from_dict(fields)


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
