import time

import pytest

from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import RequestError
from unclip.requests.other_tools import HINTS, SAME, SAMPLERS, SIDES, check_no_weights, hint, rename_fields
from unclip.requests.request import Request


def test_names_of_other_tools_become_fields():
    given = {
        "prompt": "a cat",
        "num_inference_steps": 20,
        "cfg_scale": 7.5,
        "sampler_name": "DPM++ 2M",
        "num_images": 2,
    }
    found = rename_fields(given | {"neg_prompt": "a dog", "width": 64, "height": 48})
    expected = Request(
        prompt="a cat", steps=20, guidance=7.5, sampler="dpmpp-2m", n=2, negative_prompt="a dog", size=(64, 48)
    )
    assert Request(**found) == expected


def test_every_name_leads_to_a_field_or_a_hint():
    fields = set(Request.field_names())
    assert set(SAME.values()) <= fields and not fields & {*SAME, *SIDES, *HINTS}
    assert set(SAMPLERS.values()) <= set(SAMPLER_NAMES)
    assert hint("CFG Scale") == hint("cfg-scale") == "did you mean 'guidance'?"
    assert hint("colour") is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": 3, "num_inference_steps": 4}, "num_inference_steps is another name of steps, which is given too"),
        ({"cfg": 3, "cfg_scale": 4}, "cfg_scale is another name of guidance, which is given too"),
        ({"size": "64", "width": 64, "height": 64}, "width is another name of size, which is given too"),
        ({"width": 64}, "width is only one side of the size; give width and height"),
        ({"height": 64}, "height is only one side of the size; give width and height"),
    ],
)
def test_a_field_is_given_once(fields, says):
    with pytest.raises(RequestError, match=f"^{says}"):
        rename_fields({"prompt": "a cat", **fields})


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("num_inference_steps", "did you mean 'steps'?"),
        ("guidance_scale", "did you mean 'guidance'?"),
        ("prior_guidance_scale", "did you mean 'prior_guidance'?"),
        ("cfg_scale", "did you mean 'guidance'?"),
        ("sampler_name", "did you mean 'sampler'?"),
        ("num_images_per_prompt", "did you mean 'n'?"),
        ("mask_image", "did you mean 'mask'?"),
        ("width", "use size, such as 64x64"),
        ("height", "use size, such as 64x64"),
        ("generator", "use seed"),
        ("batch_count", "use n, the number of images"),
        ("model", "use the option --model"),
    ],
)
def test_an_error_about_a_name_of_another_tool_names_ours(name, fix):
    for make in (Request, Request(prompt="a cat").replace, lambda **fields: Request.from_dict(fields)):
        with pytest.raises(RequestError) as caught:
            make(prompt="a cat", **{name: 20})
        assert str(caught.value) == f"{name!r} is not a field of a request; {fix}"


@pytest.mark.parametrize(
    "text", ["(a cat:1.3), [dog]", "a [cat:dog:0.5]", "a cat::2 dog", "((cat))", "a (big (red:.5))"]
)
def test_weights_are_refused(text):
    with pytest.raises(RequestError, match="^prompt has a weight, '.*', and weights are not read: leave it out"):
        check_no_weights("prompt", text)


@pytest.mark.parametrize(
    "text",
    ["a cat (sitting)", "at 12:30 (noon: lunch)", "C::D", "[a cat]", "f((x", "(a) (b)", "1:2", "(16:9)", "(at 7:30)"],
)
def test_plain_text_has_no_weights(text):
    check_no_weights("prompt", text)


@pytest.mark.parametrize(
    "text", ["(a:" + "1" * 300_000, "[a:b:" + "1" * 300_000, "(a:1" + " " * 300_000, "((" * 100_000]
)
def test_weights_are_found_in_linear_time(text):
    start = time.process_time()
    check_no_weights("prompt", text)
    assert time.process_time() - start < 2
