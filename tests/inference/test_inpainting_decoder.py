"""A model with an inpainting decoder: whatever has known pixels uses it, and nothing else does."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import box_mask, kept, noise_image, pixels
from tests.tiny import add_inpainting_decoder
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.pipeline import Unclip
from unclip.requests.request import Request

IMAGE, MASK = noise_image(32, 32), box_mask((32, 32), (8, 8, 24, 24))
DECODER = {"sampler": "dpmpp-2m", "steps": 4, "guidance": 2.0}


@pytest.fixture(scope="module")
def pipe(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Unclip:
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("edits") / "model"))
    add_inpainting_decoder(folder, "decoder.conv_in", "decoder.up_blocks.1", "text_proj.learned")
    return Unclip.from_pretrained(folder, "cpu", "float32")


@pytest.fixture
def calls(pipe: Unclip):
    """The names of the decoders that ran, in a set."""
    names: set[str] = set()
    model = pipe.model
    hooks = [
        stage.network.register_forward_pre_hook(lambda *_, name=name: names.add(name))
        for name, stage in {"decoder": model.decoder, "inpainting decoder": model.edit_decoder}.items()
    ]
    yield names
    for hook in hooks:
        hook.remove()


def test_edits_use_it_and_keep_known_pixels(pipe: Unclip, tiny: Unclip, calls: set[str]) -> None:
    [edited] = pipe.inpaint(IMAGE, MASK, "a cat", seed=1)
    assert calls == {"inpainting decoder"}
    assert kept(edited, IMAGE, MASK)
    [plain] = tiny.inpaint(IMAGE, MASK, "a cat", seed=1)
    assert not np.array_equal(pixels(edited), pixels(plain))
    calls.clear()
    image = noise_image(100, 64)
    [wide] = pipe.outpaint(image, "a cat", left=90, seed=1, steps=2)  # context views and windows
    assert calls == {"inpainting decoder"} and wide.image.size == (190, 64)
    assert np.array_equal(pixels(wide)[:, 90:], pixels(image))


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
def test_known_pixels_are_identical_with_every_sampler(pipe: Unclip, sampler: str) -> None:
    [edited] = pipe.inpaint(IMAGE, MASK, "a cat", seed=1, sampler=sampler)
    assert kept(edited, IMAGE, MASK)


def test_other_modes_use_the_decoder(pipe: Unclip, tiny: Unclip, calls: set[str]) -> None:
    def generate(own: Unclip) -> list[Image.Image]:
        results = [
            *own.generate("a cat", seed=1),
            *own.vary(IMAGE, seed=1),
            *own.interpolate(IMAGE, Image.new("RGB", (32, 32), "blue"), frames=2, seed=1),
            *own.reconstruct(IMAGE, seed=1, steps=3),
        ]
        return [result.image for result in results]

    ours = generate(pipe)
    assert calls == {"decoder"}
    assert [image.tobytes() for image in ours] == [image.tobytes() for image in generate(tiny)]


def test_the_defaults_of_edits_are_its_own(pipe: Unclip) -> None:
    [edited] = pipe.inpaint(IMAGE, MASK, "a cat", seed=1)
    assert (edited.request.sampler, edited.request.steps, edited.request.guidance) == ("ddim", 3, 1.5)
    [generated] = pipe.generate("a cat", seed=1)
    assert {name: getattr(generated.request, name) for name in DECODER} == DECODER
    fast = pipe.resolve(Request(mode="inpaint", prompt="a cat", image=IMAGE, mask=MASK, speed="fast"))
    assert fast.steps == 3  # of the bundle's 4, what the stage has


def test_windows_without_a_prompt_have_its_null_embedding(pipe: Unclip) -> None:
    model = pipe.model
    ours, theirs = (model.null_embed_of(stage) for stage in (model.edit_decoder, model.decoder))
    assert not torch.equal(ours, theirs) and torch.equal(model.null_embed, theirs)


def test_an_edit_alone_equals_that_of_a_batch(pipe: Unclip) -> None:
    requests = [Request(mode="inpaint", prompt="a cat", image=IMAGE, mask=MASK, seed=seed) for seed in (3, 4, 5)]
    together = pipe.generate(requests)
    for request, result in zip(requests, together, strict=True):
        [alone] = pipe.generate([request])
        assert np.abs(pixels(alone) - pixels(result)).max() <= 1
