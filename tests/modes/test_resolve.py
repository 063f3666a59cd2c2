from dataclasses import replace
from pathlib import Path

import pytest

from unclip.errors import DataError, RequestError
from unclip.modes.resolve import model_defaults
from unclip.pipeline import Unclip
from unclip.requests.request import Request


def test_defaults_are_those_of_the_checkpoint(tiny: Unclip) -> None:
    assert tiny.model.name == "tiny"
    assert tiny.model.sizes == [(16, 16), (32, 32)]
    assert model_defaults(tiny.model) == {
        "steps": 4,
        "prior": "diffusion",
        "prior_steps": 3,
        "upsampler_steps": 2,
        "guidance": 2.0,
        "prior_guidance": 1.5,
        "sampler": "dpmpp-2m",
        "prior_sampler": "ddim",
        "size": (32, 32),
        "prior_best_of": 2,
    }


@pytest.mark.parametrize(
    ("prompt", "fields", "message"),
    [
        ("a cat", {"size": 64}, "tiny does not generate images of 64x64; choose from 16x16, 32x32"),
        ("a cat", {"size": (16, 32)}, "tiny does not generate images of 16x32"),
        ("a cat", {"batch_size": 0}, "batch_size must be a whole number from 1"),
        ("a cat", {"batch_size": "x"}, "batch_size must be a whole number from 1"),
        (None, {}, "prompt must be text, a Request, or a list of these, not None"),
        (["a cat", "  "], {}, "prompt is empty"),
        ("a cat", {"n": 0}, "n must be a whole number from 1"),
        ("a cat", {"steps": 0}, "steps must be a whole number from 1"),
        (["a cat", Request(prompt="a dog")], {"steps": 3, "seed": 1}, "steps, seed cannot be given beside a Request"),
        (["a cat", Request(prompt="a dog", size=48)], {}, "tiny does not generate images of 48x48"),
    ],
)
def test_invalid_arguments_raise_before_sampling(tiny: Unclip, prompt, fields: dict, message: str) -> None:
    def never(*_: object) -> None:
        raise AssertionError("sampling began")

    with pytest.raises(RequestError) as caught:
        tiny.stream(prompt, progress=never, **fields)  # without asking for a result
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_an_upsampler(tiny: Unclip) -> None:
    pipe = Unclip(replace(tiny.model, upsamplers=()))
    assert pipe.generate("a red cat", seed=7)[0].image.size == (16, 16)
    with pytest.raises(RequestError, match="tiny does not generate images of 32x32; choose from 16x16"):
        pipe.generate("a red cat", size=32)


def test_invalid_input_files_raise_before_sampling(tiny: Unclip, cat, tmp_path: Path) -> None:
    for fields, error, says in [
        ({"mode": "vary", "image": "none.png"}, DataError, "cannot read the image 'none.png'"),
        ({"mode": "interpolate", "sources": [cat, "none.jpg"]}, DataError, "none.jpg"),
        ({"mode": "interpolate", "sources": [cat, "none.safetensors"]}, DataError, "none.safetensors"),
        ({"embedding": "none.safetensors"}, DataError, "none.safetensors"),
        ({"mode": "vary", "image": cat, "size": 48}, RequestError, "does not generate images of 48x48"),
    ]:
        with pytest.raises(error, match=says):
            tiny.stream([Request(prompt="a cat"), Request(**fields)])
