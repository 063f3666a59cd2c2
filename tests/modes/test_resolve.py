from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import difference
from unclip.errors import DataError, RequestError
from unclip.inference.speeds import WITHOUT_SHORTCUTS
from unclip.modes.notes import notes
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
        "noise_level": None,
        "upsampler_steps": 2,
        "guidance": 2.0,
        "prior_guidance": 1.5,
        "sampler": "dpmpp-2m",
        "prior_sampler": "ddim",
        "size": (32, 32),
        "prior_best_of": 2,
        "prior_temperature": None,
        "prior_top_p": None,
    }


@pytest.mark.parametrize(
    ("prompt", "fields", "message"),
    [
        ("a cat", {"size": 64}, "tiny does not generate images of 64x64; choose from 16x16, 32x32"),
        ("a cat", {"noise_level": 0}, "tiny adds no noise to embeddings, as Stable unCLIP does: leave noise_level out"),
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


# ---- speed


def with_speeds(tiny: Unclip, **bundle: object) -> Unclip:
    return Unclip(replace(tiny.model, speeds={"fast": bundle}))


def test_a_speed_sets_fields_and_explicit_ones_win(tiny: Unclip) -> None:
    pipe = with_speeds(tiny, steps=2, guidance_every=2, prior_steps=1, sampler="ddim")
    fast = pipe.resolve(Request(prompt="a cat", seed=1, speed="fast", steps=4, spacing="ays"))
    assert (fast.steps, fast.guidance_every, fast.prior_steps, fast.sampler, fast.spacing) == (4, 2, 1, "ddim", "ays")
    assert fast.speed == "fast" and fast.guidance_interval == (0.0, 100_000.0)
    best = pipe.resolve(Request(prompt="a cat", seed=1, speed="best"))
    plain = pipe.resolve(Request(prompt="a cat", seed=1))
    assert (best.steps, best.guidance_every, best.cache_every, best.upsampler_cache_every) == (4, 1, 1, 1)
    assert plain.replace(speed="best", **WITHOUT_SHORTCUTS) == best
    images = [pipe.generate(request)[0].image.tobytes() for request in (best, plain, fast)]
    assert images[0] == images[1] != images[2]


def test_a_record_with_a_speed_repeats_whatever_the_bundle_is_then(tiny: Unclip) -> None:
    [made] = with_speeds(tiny, steps=2, guidance_every=2).generate("a cat", seed=1, speed="fast")
    later = with_speeds(tiny, steps=3, cache_every=3, guidance_interval=(1, 2), upsampler_steps=1)
    [again] = later.generate(Request.from_dict(made.request.to_dict()))
    assert again.image.tobytes() == made.image.tobytes()


def test_steps_of_a_speed_are_upper_limits(tiny: Unclip) -> None:
    request = with_speeds(tiny, steps=50, upsampler_steps=1).resolve(Request(prompt="a cat", speed="fast"))
    assert (request.steps, request.upsampler_steps) == (4, 1)


def test_a_model_without_a_prior_has_no_prior_fields_by_speed(tiny: Unclip) -> None:
    pipe = Unclip(replace(tiny.model, prior=None, speeds={"fast": {"prior_steps": 1, "prior_sampler": "ddim"}}))
    request = pipe.resolve(Request(mode="vary", image=Image.new("RGB", (16, 16)), speed="fast"))
    assert request.prior_steps is None and request.prior_sampler is None


def test_a_speed_leaves_the_decoder_of_inverted_images_as_it_is(tiny: Unclip) -> None:
    pipe = with_speeds(tiny, steps=2, sampler="unipc", cache_every=2, spacing="ays", upsampler_steps=1)
    request = pipe.resolve(Request(mode="reconstruct", image=Image.new("RGB", (16, 16)), speed="fast"))
    assert (request.steps, request.sampler, request.guidance) == (25, "ddim", 1)
    assert (request.cache_every, request.spacing, request.upsampler_steps) == (1, "uniform", 1)
    assert list(notes(tiny.model, request)) == [
        "speed fast does not change the decoder here, which starts from an image's own noise"
    ]


def test_an_unknown_speed_of_a_model(tiny: Unclip) -> None:
    pipe = Unclip(replace(tiny.model, speeds={}))
    with pytest.raises(RequestError, match="tiny has no settings for speed balanced: set steps, or leave speed out"):
        pipe.generate("a cat", speed="balanced")
    assert pipe.generate("a cat", speed="best")


def test_shortcuts_of_parts_that_a_model_lacks_are_refused(tiny: Unclip) -> None:
    bare = Unclip(replace(tiny.model, upsamplers=()))
    with pytest.raises(RequestError, match="tiny has no upsampler: leave out upsampler_cache_every"):
        bare.generate("a cat", upsampler_cache_every=2)
    assert bare.generate("a cat", upsampler_cache_every=1)


def test_shortcuts_of_guidance_without_guidance_have_a_note(tiny: Unclip) -> None:
    fields = {"seed": 1, "guidance_every": 2, "guidance_interval": (1, 2), "size": 16}
    [none], [unguided], [guided] = (tiny.generate("a cat", guidance=scale, **fields) for scale in (0, 1, 2))
    assert none.notes == ("guidance_every: no effect at guidance 0, which needs one evaluation a step",)
    assert unguided.notes == (
        "guidance_interval and guidance_every: no effect at guidance 1, which needs one evaluation a step",
    )
    assert guided.notes == ()


def test_shortcuts_of_a_single_step_have_a_note(tiny: Unclip) -> None:
    fields = {"cache_every": 2, "guidance_every": 2, "upsampler_cache_every": 2}
    [small] = tiny.generate("a cat", seed=1, steps=1, size=16, **fields)
    assert small.notes == (
        "guidance_every: no effect with a single step",
        "cache_every: no effect with a single step",
        "upsampler_cache_every: no effect on images of 16x16, which are not upsampled",
    )
    [large] = tiny.generate("a cat", seed=1, steps=2, upsampler_steps=1, **fields)
    assert large.notes == ("upsampler_cache_every: no effect with a single step of the upsampler",)
    assert tiny.generate("a cat", seed=1, steps=2, upsampler_steps=2, **fields)[0].notes == ()


def test_a_negative_prompt_without_guidance_has_a_note(tiny: Unclip, cat: Image.Image) -> None:
    says = ("negative_prompt: no effect at guidance 1, which is none: set a higher guidance",)
    fields = {"negative_prompt": "a dog", "seed": 1, "size": 16}
    unguided = {"guidance": 1, "prior_guidance": 1}
    [plain], [against] = (tiny.generate("a cat", **f, **unguided) for f in ({"seed": 1, "size": 16}, fields))
    assert (plain.notes, against.notes) == ((), says) and difference(plain, against) == 0
    assert tiny.generate("a cat", guidance=1, **fields)[0].notes == ()  # the prior is guided
    assert tiny.generate("a cat", prior_guidance=1, **fields)[0].notes == ()
    assert tiny.edit(cat, "a dog", steps=2, **fields)[0].notes == says  # guided by 1, as inverted images are
    assert tiny.vary(cat, steps=2, strength=0.5, **fields)[0].notes == ()
