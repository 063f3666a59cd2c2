"""Stable unCLIP: this pipeline gives the same images as diffusers' own, with DDIM."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableUnCLIPImg2ImgPipeline, StableUnCLIPPipeline
from safetensors.torch import load_file, save_file

from tests.helpers import noise_image
from tests.published_stable_unclip import SIZES, image_variation, text_to_image
from tests.sampling import sample_tensors
from unclip import Unclip
from unclip.diffusion.noise import make_generators
from unclip.errors import CheckpointError, RequestError
from unclip.modes.base import make_conditioning, make_run
from unclip.modes.resolve import model_defaults
from unclip.requests.request import Request


@pytest.fixture(scope="module", params=SIZES)
def both(request, tmp_path_factory) -> tuple[Unclip, StableUnCLIPPipeline]:
    """A text to image checkpoint, loaded by this project and by diffusers."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = text_to_image(SIZES[request.param], folder)
    theirs.save_pretrained(folder / "model")
    return Unclip.from_pretrained(folder / "model", "cpu", "float32"), theirs


@pytest.fixture(scope="module", params=SIZES)
def variations(request, tmp_path_factory) -> tuple[Unclip, StableUnCLIPImg2ImgPipeline]:
    """An image variation checkpoint, loaded by this project and by diffusers."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = image_variation(SIZES[request.param], folder)
    theirs.save_pretrained(folder / "model")
    return Unclip.from_pretrained(folder / "model", "cpu", "float32"), theirs


def assert_same(found: torch.Tensor, expected: np.ndarray) -> None:
    """Compare images `b 3 h w` in [-1, 1] with diffusers' `b h w 3` in [0, 1]."""
    images = ((found.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    assert images.shape == expected.shape
    assert (np.abs(images - expected) > 2 / 255).mean() < 0.01  # random weights amplify rounding here and there
    assert np.median(np.abs(images - expected)) < 1e-4
    assert expected.std() > 0.05


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        (["a red cat!"], {}),
        (["a red cat!", "two dogs"], {"prior_steps": 2, "steps": 7}),
        (["a red cat!"], {"size": (48, 32)}),
        (["a cat"], {"guidance": 1.0, "prior_guidance": 1.0}),
        (["a red cat!", "two dogs"], {"noise_level": 600}),
    ],
)
def test_images_are_those_of_diffusers(both, prompts: list[str], fields: dict) -> None:
    ours, theirs = both
    fields = {"prior_steps": 3, "steps": 4, "sampler": "ddim"} | fields
    requests = [ours.resolve(Request(prompt=p, seed=7 + i, **fields)) for i, p in enumerate(prompts)]
    first = requests[0]
    expected = theirs(
        prompts,
        width=first.size[0],
        height=first.size[1],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        prior_num_inference_steps=first.prior_steps,
        prior_guidance_scale=first.prior_guidance,
        noise_level=first.noise_level,
        generator=make_generators([request.seed for request in requests]),
        output_type="np",
    ).images
    assert_same(sample_tensors(ours, requests), expected)


def test_negative_prompts_guide_the_decoder_as_in_diffusers(both) -> None:
    ours, theirs = both
    request = ours.resolve(
        Request(prompt="a cat", negative_prompt="blurry dogs", seed=7, prior_steps=3, steps=4, sampler="ddim")
    )
    expected = theirs(
        "a cat",
        negative_prompt="blurry dogs",
        num_inference_steps=4,
        prior_num_inference_steps=3,
        generator=make_generators([7]),
        output_type="np",
    ).images
    # There, a negative prompt does not reach the prior.
    model, run = ours.model, make_run(ours.model, [request])
    text, nothing, negative = (model.encode_text([prompt]) for prompt in ("a cat", "", "blurry dogs"))
    embed = model.sample_prior(text, nothing, run)
    assert_same(model.sample(make_conditioning(model, list(embed), text, negative, run), run), expected)


@pytest.mark.parametrize(("prompt", "level"), [("", 0), ("a red cat", 0), ("", 999)])
def test_variations_are_those_of_diffusers(variations, prompt: str, level: int) -> None:
    ours, theirs = variations
    image = noise_image(28, 28)
    request = ours.resolve(
        Request(mode="vary", image=image, prompt=prompt, seed=5, steps=4, sampler="ddim", fit="crop", noise_level=level)
    )
    expected = theirs(
        image,
        prompt,
        width=request.size[0],
        height=request.size[1],
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        noise_level=level,
        generator=make_generators([5]),
        output_type="np",
    ).images
    embed = ours.embed_image(image)
    assert_same(sample_tensors(ours, [request], embed.view(1, -1)), expected)


def test_the_defaults_are_the_published_ones(both) -> None:
    found = model_defaults(both[0].model)
    assert (found["steps"], found["guidance"], found["prior_steps"], found["prior_guidance"]) == (20, 10, 25, 4)


def test_noise_levels_differ_and_have_a_limit(both) -> None:
    ours, _ = both
    assert ours.resolve(Request(prompt="a", noise_level=999)).noise_level == 999
    one, other = (ours.generate("a", seed=1, steps=2, prior_steps=1, noise_level=level)[0] for level in (0, 300))
    assert one.image.tobytes() != other.image.tobytes()
    assert (one.request.noise_level, other.request.noise_level) == (0, 300)
    with pytest.raises(RequestError, match="noise_level must be a whole number from 0 to 999"):
        Request(prompt="a", noise_level=1000)


@pytest.mark.parametrize(
    ("component", "change", "message"),
    [
        ("vae", {"scaling_factor": 0}, "scaling_factor is 0, and should be a number from 0.001 up"),
        ("vae", {"shift_factor": "x"}, "shift_factor is 'x', and should be a number"),
        ("text_encoder", {"vocab_size": 100}, "vocab_size is 100, and should be greater than or equal to 49408"),
        ("prior_text_encoder", {"max_position_embeddings": 2}, "max_position_embeddings is 2, and should be"),
        ("scheduler", {"beta_end": 0.9}, "beta_end is 0.9: the last of 1000 timesteps has no signal"),
    ],
)
def test_values_that_fail_only_in_sampling_are_refused(both, component, change, message, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(both[0].model.folder, tmp_path / "copy"))
    path = next((folder / component).glob("*config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        Unclip.from_pretrained(folder, "cpu", "float32")


def test_a_normalizer_without_deviation_is_refused(both, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(both[0].model.folder, tmp_path / "copy"))
    [path] = (folder / "image_normalizer").glob("*.safetensors")
    tensors = load_file(path)
    tensors["std"][0, 1] = 0
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="image_normalizer: its std has values that are not above 0"):
        Unclip.from_pretrained(folder, "cpu", "float32")


def test_image_variations_refuse_what_needs_a_prior(variations) -> None:
    ours, _ = variations
    with pytest.raises(RequestError, match="has no prior"):
        ours.generate("a cat", steps=2)
    with pytest.raises(RequestError, match="no text encoder"):
        ours.score([noise_image(8, 8)], ["a cat"])


def test_a_prior_is_taken_from_another_repository_if_it_fits(both, tmp_path: Path) -> None:
    ours, theirs = both
    folder = ours.model.folder
    size = next(size for size in SIZES.values() if size["dim"] == ours.model.clip.config.embed_dim)
    image_variation(size, tmp_path).save_pretrained(tmp_path / "variations")
    prior = tmp_path / "karlo"
    for name in ("prior", "prior_scheduler"):
        (prior / name).mkdir(parents=True)
        for file in (folder / name).iterdir():
            (prior / name / file.name).write_bytes(file.read_bytes())
    theirs.prior_text_encoder.save_pretrained(prior / "text_encoder")
    theirs.prior_tokenizer.save_pretrained(prior / "tokenizer")
    (prior / "model_index.json").write_text('{"prior": ["diffusers", "PriorTransformer"]}')
    pipe = Unclip.from_pretrained(tmp_path / "variations", "cpu", "float32", prior=prior)
    [result] = pipe.generate("a cat", steps=2, prior_steps=2)
    assert result.score is not None
    with pytest.raises(CheckpointError, match="a prior of its own"):
        Unclip.from_pretrained(folder, "cpu", "float32", prior=prior)
