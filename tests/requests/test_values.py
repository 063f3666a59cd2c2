import json
import math

import numpy as np
import pytest

from unclip.errors import InputError, RequestError
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
        ("speed", "faster", "did you mean 'fast'"),
        ("spacing", "ayes", "did you mean 'ays'"),
        ("guidance_every", 0, "from 1 to 1000"),
        ("cache_every", 1.5, "whole number"),
        ("upsampler_cache_every", "2", "whole number"),
        ("guidance_interval", 3, "two numbers, the lower one first"),
        ("guidance_interval", (5, 0.3), "two numbers, the lower one first"),
        ("guidance_interval", (1, 1), "two numbers, the lower one first"),
        ("guidance_interval", (1, 2, 3), "two numbers, the lower one first"),
        ("guidance_interval", "low,high", "from 0 to 100000"),
        ("guidance_interval", (-1, 2), "from 0 to 100000"),
        ("guidance_interval", (1, math.inf), "from 0 to 100000"),
        ("guidance_interval", (), "is empty"),
    ],
)
def test_an_invalid_value_error_is_one_line_with_field_and_fix(field, value, fix):
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


@pytest.mark.parametrize("given", ["0.3,5", " 0.3 , 5", (0.3, 5), [0.3, 5.0]])
def test_forms_of_an_interval(given):
    request = Request(prompt="a cat", guidance_interval=given)
    assert request.guidance_interval == (0.3, 5.0)
    assert json.loads(json.dumps(request.to_dict()))["guidance_interval"] == [0.3, 5.0]
    assert Request.from_dict(json.loads(json.dumps(request.to_dict()))) == request
