"""The second upsampler: it runs where its size is asked for, in every mode, and changes nothing elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import difference, noise_image, pixels
from unclip.diffusion.noise import make_generators
from unclip.errors import RequestError
from unclip.inference.model import UnclipModel
from unclip.inference.run_context import Run, SamplingOptions
from unclip.inference.stage_inputs import StageInputs
from unclip.models.upsampler import enlarge
from unclip.modes.resolve import output_size, resolve
from unclip.pipeline import Unclip
from unclip.requests.request import Request

STAGE = "second upsampler"
IMAGE = noise_image(40, 40)
MODES: dict[str, dict[str, Any]] = {
    "generate": {"prompt": "a cat"},
    "vary": {"image": IMAGE},
    "interpolate": {"sources": (IMAGE, "a dog")},
    "edit": {"image": IMAGE, "prompt": "a dog"},
    "reconstruct": {"image": IMAGE},
}


def test_the_default_size_stays_and_its_images_too(tiny: Unclip, tiny_second: Unclip) -> None:
    [plain], [other] = (pipe.generate("a cat", seed=3) for pipe in (tiny, tiny_second))
    assert plain.image.size == other.image.size == tiny_second.model.default_size == (32, 32)
    assert np.array_equal(pixels(plain), pixels(other)) and STAGE not in other.timings
    assert plain.request.replace(prior_best_of=None) == other.request.replace(prior_best_of=None)
    assert tiny_second.model.sizes == [(16, 16), (32, 32), (128, 128)]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_size(tiny_second: Unclip, mode: str) -> None:
    fields = {"mode": mode, "seed": 4, "steps": 2, **MODES[mode]}
    request = Request(size=128, **fields)
    results = tiny_second.generate(request)
    assert {result.image.size for result in results} == {(128, 128)} == {output_size(tiny_second.model, request)}
    assert STAGE in results[0].timings and results[0].request.size == (128, 128)


def test_it_enlarges_the_image_of_the_first_one(tiny_second: Unclip) -> None:
    model = tiny_second.model
    small = model.upsample(model_images(model), run_of(model, (32, 32)))
    large = model.upsample(model_images(model), run_of(model, (128, 128)))
    stage = model.upsamplers[1]
    inputs = StageInputs({"enlarged": stage.codec.encode(enlarge(small, (128, 128)))})
    expected = stage.run(inputs, make_generators([0]))
    assert (large - expected).abs().max() < 1e-5


def model_images(model: UnclipModel) -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def run_of(model: UnclipModel, size: tuple[int, int]) -> Run:
    return Run(make_generators([0]), model.device, SamplingOptions(size=size))


def test_alone_and_in_a_batch(tiny_second: Unclip) -> None:
    requests = [
        Request(prompt=prompt, seed=seed, size=128) for prompt, seed in (("a cat", 1), ("a dog", 2), ("red", 3))
    ]
    batch = tiny_second.generate(requests)
    for request, together in zip(requests, batch, strict=True):
        [alone] = tiny_second.generate(request)
        assert difference(alone, together) <= 1


def test_it_takes_one_step_whatever_the_first_one_takes(tiny_second: Unclip) -> None:
    reported: list[tuple[str, int, int]] = []
    request = Request(prompt="a cat", seed=1, size=128, upsampler_steps=3)
    tiny_second.generate(request, progress=lambda *event: reported.append(event))
    assert {total for stage, _, total in reported if stage == STAGE} == {1}
    assert {total for stage, _, total in reported if stage == "upsampler"} == {3}


def test_reused_features_are_those_of_the_first_one(tiny_second: Unclip) -> None:
    [result] = tiny_second.generate("a cat", seed=1, size=128, upsampler_cache_every=2, upsampler_steps=3)
    assert result.image.size == (128, 128)


def test_a_model_without_it_names_the_sizes_that_it_has(tiny: Unclip) -> None:
    with pytest.raises(RequestError) as caught:
        resolve(tiny.model, Request(prompt="a cat", size=128))
    assert str(caught.value) == "tiny does not generate images of 128x128; choose from 16x16, 32x32"


def test_it_is_loaded_when_it_is_used_in_low_memory(tiny_second_model: Path, tiny_second: Unclip) -> None:
    low = Unclip.from_pretrained(tiny_second_model, device="cpu", dtype="float32", memory="low")
    [expected], [result] = (pipe.generate("a cat", seed=1, size=128) for pipe in (tiny_second, low))
    assert difference(expected, result) <= 1
