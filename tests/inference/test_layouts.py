"""A decoder that knows layouts: the seed chooses one, unless something else says where objects are."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import DECODER, TEXT_PROJ, tiny_network, write_tiny_model
from unclip.checkpoints.networks import save_network
from unclip.diffusion.noise import make_generators
from unclip.errors import CheckpointError
from unclip.images.processing import to_images
from unclip.inference.stage_inputs import StageInputs
from unclip.models.decoder import Decoder
from unclip.models.layout import LAYOUT_SIZE, MAP_CHANNELS, random_layout
from unclip.pipeline import Unclip
from unclip.requests.request import Request

SPREAD = 1
PROJECTION = {**TEXT_PROJ, "layout_size": LAYOUT_SIZE, "layout_spread": SPREAD}
UNET = {**DECODER, "in_channels": DECODER["in_channels"] + MAP_CHANNELS}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("layouts") / "tiny")
    save_network(tiny_network("TextProjection", PROJECTION, 3), folder / "text_proj")
    save_network(tiny_network("UNet2DConditionModel", UNET, 4), folder / "decoder")
    return folder


@pytest.fixture
def pipe(model: Path) -> Unclip:
    return Unclip.from_pretrained(model, device="cpu", dtype="float32")


@pytest.fixture
def layouts(pipe: Unclip, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor | None]:
    """The layouts that the decoder gets from now on."""
    seen: list[torch.Tensor | None] = []
    condition = Decoder.condition

    def spy(self: Decoder, *args: Any, **options: Any) -> dict[str, torch.Tensor]:
        seen.append(options.get("layout"))
        return condition(self, *args, **options)

    monkeypatch.setattr(Decoder, "condition", spy)
    return seen


def test_the_decoder_knows_layouts_and_masks_beside_them(pipe: Unclip) -> None:
    network = pipe.model.decoder.network
    assert network.has_layouts and network.has_inpainting_inputs
    assert network.projection.config.to_dict()["layout_spread"] == SPREAD


def test_old_decoders_know_none_and_their_config_stays_as_it_was(tiny: Unclip) -> None:
    network = tiny.model.decoder.network
    assert not network.has_layouts
    assert not any(key.startswith("layout") for key in network.projection.config.to_dict())
    assert "coordinates" not in network.condition(torch.zeros(1, 16), tiny.model.encode_text(["a cat"]))


def test_a_projection_with_layouts_needs_a_network_with_their_coordinates(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    save_network(tiny_network("UNet2DConditionModel", {**DECODER, "in_channels": 48}, 4), folder / "decoder")
    with pytest.raises(CheckpointError, match="at least 65 input channels, not 48: use the files of one model"):
        Unclip.from_pretrained(folder, device="cpu", dtype="float32")


def test_the_seed_chooses_the_layout(pipe: Unclip) -> None:
    [result] = pipe.generate("a red cat", seed=9, size=16, prior_best_of=1)
    text, without = pipe.model.encode_text(["a red cat"]), pipe.model.encode_text([""])
    network, noise = pipe.model.decoder.network, make_generators([9])
    prior = pipe.model.prior
    assert prior is not None
    x = prior.stage.run(  # pyright: ignore[reportAttributeAccessIssue]
        StageInputs(prior.stage.network.condition(text), prior.stage.network.condition(without)),  # pyright: ignore
        noise,
    )
    embed = prior.stage.network.unwhiten(x)  # pyright: ignore[reportAttributeAccessIssue]
    layout = torch.tensor([random_layout(9, SPREAD)])
    cond, uncond = network.condition(embed, text, layout=layout), network.condition(None, without, layout=layout)
    assert result.image.tobytes() == to_images(pipe.model.decoder.run(StageInputs(cond, uncond), noise))[0].tobytes()
    other = network.condition(embed, text, layout=torch.tensor([random_layout(10, SPREAD)]))
    for key in ("time_condition", "coordinates"):
        assert not torch.equal(cond[key], other[key])


def test_an_image_alone_equals_that_of_a_batch(pipe: Unclip) -> None:
    seeds = [3, 4, 5, 6, 7]
    batch = [result.image for result in pipe.generate([Request(prompt="a red cat", seed=seed) for seed in seeds])]
    for seed, image in zip(seeds, batch, strict=True):
        [alone] = pipe.generate("a red cat", seed=seed)
        assert np.abs(np.asarray(alone.image, int) - np.asarray(image, int)).max() <= 1


def test_layouts_are_the_same_with_and_without_guidance(pipe: Unclip, layouts: list) -> None:
    pipe.generate([Request(prompt="a red cat", seed=seed, prior_best_of=1) for seed in (3, 4)])
    cond, uncond = layouts
    assert torch.equal(cond, uncond)
    assert torch.equal(cond, torch.tensor([random_layout(seed, SPREAD) for seed in (3, 4)]))


def test_variations_have_layouts_and_inversions_none(pipe: Unclip, layouts: list) -> None:
    image = Image.new("RGB", (32, 32), "red")
    pipe.vary(image, seed=3)
    assert all(layout is not None for layout in layouts)
    layouts.clear()
    pipe.reconstruct(image, seed=3)
    assert layouts and all(layout is None for layout in layouts)


def test_edits_leave_the_layout_open(pipe: Unclip, layouts: list) -> None:
    image, mask = Image.new("RGB", (32, 32), "red"), Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))
    [result] = pipe.inpaint(image, mask, "a red cat", seed=3)
    assert layouts and all(layout is None for layout in layouts)
    assert result.image.getpixel((0, 0)) == (255, 0, 0)
    layouts.clear()
    pipe.outpaint(image, "a red cat", left=16, seed=3)
    assert layouts and all(layout is None for layout in layouts)
