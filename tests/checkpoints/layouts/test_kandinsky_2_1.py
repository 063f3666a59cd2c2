"""Kandinsky 2.1: this pipeline gives the same images as diffusers' own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import KandinskyPipeline, KandinskyPriorPipeline

from tests.published_kandinsky_2_1 import SIZES_2_1, kandinsky_2_1_decoder, kandinsky_2_1_prior, multilingual_clip
from tests.sampling import sample_tensors
from unclip import Unclip
from unclip.checkpoints.verify import check_checkpoint
from unclip.diffusion.noise import make_generators
from unclip.errors import CheckpointError
from unclip.inference.stage_inputs import StageInputs, StageOptions
from unclip.requests.request import Request


@pytest.fixture(scope="module", params=SIZES_2_1)
def both(request, tmp_path_factory) -> tuple[Unclip, KandinskyPriorPipeline, KandinskyPipeline]:
    """A checkpoint, loaded by this project and by diffusers."""
    folder, size = tmp_path_factory.mktemp(request.param), SIZES_2_1[request.param]
    prior, decoder = kandinsky_2_1_prior(size, folder), kandinsky_2_1_decoder(size)
    prior.save_pretrained(folder / "kandinsky-2-1-prior")
    decoder.save_pretrained(folder / "decoder")
    return Unclip.from_pretrained(folder / "decoder", "cpu", "float32"), prior, decoder


def sample_diffusers(both, requests: list[Request]) -> np.ndarray:
    """Images `b h w 3` in [0, 1] of diffusers."""
    _, prior, decoder = both
    first, noise = requests[0], make_generators([request.seed for request in requests])
    prompts = [request.prompt for request in requests]
    negative = [request.negative_prompt for request in requests] if first.negative_prompt else None
    embeds = prior(
        prompts,
        negative_prompt=negative,
        num_inference_steps=first.prior_steps,
        guidance_scale=first.prior_guidance,
        generator=noise * (1 if negative is None else 2),
    )
    return decoder(
        prompts,
        embeds.image_embeds,
        embeds.negative_image_embeds,
        negative_prompt=negative,
        width=first.size[0],
        height=first.size[1],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        generator=noise,
        output_type="np",
    ).images


@pytest.mark.parametrize(
    ("prompts", "fields"),
    [
        (["a red cat, photo"], {}),
        (["a red cat", "Красный кот"], {"prior_steps": 2, "steps": 7}),
        (["a red cat"], {"size": (48, 32)}),
        (["cat"], {"negative_prompt": "a dog"}),
        (["a cat", "red dog"], {"negative_prompt": "a photo", "guidance": 2.0, "prior_guidance": 1.5}),
        (["a cat"], {"steps": 30}),
    ],
)
def test_images_are_those_of_diffusers(both, prompts: list[str], fields: dict) -> None:
    ours, _, _ = both
    fields = {"prior_steps": 3, "steps": 4} | fields
    requests = [ours.resolve(Request(prompt=p, seed=7 + i, **fields)) for i, p in enumerate(prompts)]
    images = sample_tensors(ours, requests)
    found = ((images.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 1).numpy()
    expected = sample_diffusers(both, requests)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) > 2 / 255).mean() < 0.01  # random weights amplify rounding here and there
    assert np.median(np.abs(found - expected)) < 1e-4
    inside = (expected > 0.02) & (expected < 0.98)
    assert inside.mean() > 0.2 and expected.std() > 0.05  # most pixels are not clipped to black or white


@pytest.mark.parametrize("negative", ["", "a dog"])
def test_inpainting_inputs_are_those_of_diffusers(negative: str, tmp_path: Path) -> None:
    """diffusers leaves the known part to the network; this project also keeps it at each step, unlike here."""
    size = SIZES_2_1["one"]
    prior, decoder = kandinsky_2_1_prior(size, tmp_path), kandinsky_2_1_decoder(size, inpaint=True)
    prior.save_pretrained(tmp_path / "kandinsky-2-1-prior")
    decoder.save_pretrained(tmp_path / "decoder")
    ours = Unclip.from_pretrained(tmp_path / "decoder", "cpu", "float32")
    stage, (width, height) = ours.model.decoder, ours.model.sizes[0]
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 1, height, width)
    mask[..., 8:24, 4:20] = 1  # to repaint
    embed = torch.randn(1, size["dim"], generator=torch.Generator().manual_seed(2))
    hint = stage.codec.encode(image), stage.codec.encode_mask(1 - mask)
    assert set(hint[1].unique().tolist()) == {0.0, 1.0}
    inputs = StageInputs(
        stage.network.condition(embed, ours.model.encode_text(["a cat"]), *hint),
        stage.network.condition(0 * embed, ours.model.encode_text([negative]), *hint),
    )
    sampled = stage.run(inputs, make_generators([5]), StageOptions(steps=5))
    [expected] = decoder(
        ["a cat"],
        image=image,
        mask_image=mask,
        image_embeds=embed,
        negative_image_embeds=0 * embed,
        negative_prompt=[negative],
        width=width,
        height=height,
        num_inference_steps=5,
        generator=make_generators([5]),
        output_type="np",
    ).images
    found = ((sampled[0].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    assert (np.abs(found - expected) > 2 / 255).mean() < 0.02  # random weights amplify rounding here and there
    assert np.median(np.abs(found - expected)) < 1e-4
    assert expected.std() > 0.05
    inputs.cond.pop("hint"), inputs.uncond.pop("hint")
    assert not torch.allclose(stage.run(inputs, make_generators([5]), StageOptions(steps=5)), sampled, atol=0.02)


def test_the_decoder_reads_the_prompt_itself(both) -> None:
    """The same image embedding with another prompt gives another image, and a prompt in another language is read."""
    ours, _, _ = both
    text = ours.model.encode_text(["red cat", "Красный кот", "red cat"])
    states = text.for_decoder.states
    assert (states[0] == states[2]).all() and (states[0] - states[1]).abs().max() > 0.1
    assert states.shape[1] == 77


def test_the_defaults_are_the_published_ones(both) -> None:
    ours, _, _ = both
    resolved = ours.resolve(Request(prompt="a cat"))
    assert (resolved.steps, resolved.sampler, resolved.guidance) == (100, "ddim", 4.0)
    assert (resolved.prior_steps, resolved.prior_sampler, resolved.prior_guidance) == (25, "unclip", 4.0)


@pytest.mark.parametrize("memory", ["low", "high"])
def test_an_image_does_not_depend_on_memory_or_batch(both, memory: str) -> None:
    ours, _, _ = both
    other = Unclip.from_pretrained(ours.model.folder, "cpu", "float32", memory)
    few = {"steps": 3, "prior_steps": 2, "seed": 3}
    requests = [Request(prompt=p, **few) for p in ("a cat", "a red dog")]
    together = ours.generate(requests)
    for request, result in zip(requests, together, strict=True):
        [alone] = other.generate(request)
        assert np.abs(np.asarray(alone.image).astype(int) - np.asarray(result.image)).max() <= 1


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("text_encoder/config.json", {"numDims": 15}, "has misshapen tensors: LinearTransformation"),
        ("unet/config.json", {"encoder_hid_dim_type": "image_proj"}, "unet lacks tensors: encoder_hid_proj.norm"),
        ("model_index.json", {"tokenizer": ["transformers", "CLIPTokenizer"]}, "the tokenizer is a 'CLIPTokenizer'"),
        ("model_index.json", {"text_encoder": ["transformers", "CLIPTextModel"]}, "not a MultilingualCLIP"),
    ],
)
def test_other_checkpoints_are_refused(both, file: str, change: dict, message: str, tmp_path: Path) -> None:
    source = both[0].model.folder.parent
    folder = Path(shutil.copytree(source, tmp_path / "copy")) / "decoder"
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        Unclip.from_pretrained(folder, "cpu", "float32")


def test_a_text_encoder_of_another_embedding_size_is_refused(both, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(both[0].model.folder.parent, tmp_path / "copy")) / "decoder"
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    multilingual_clip(config["hidden_size"], 10).save_pretrained(folder / "text_encoder")
    with pytest.raises(CheckpointError, match="text_encoder/config.json: numDims is 10, and should be"):
        Unclip.from_pretrained(folder, "cpu", "float32")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"vocab_size": 12}, r"vocab_size is 12, and should be at least the tokenizer's \d+"),
        ({"max_position_embeddings": 78}, "max_position_embeddings is 78, and should be at least 79"),
        ({"pad_token_id": 3}, "pad_token_id is 3, and should be 1, as the tokenizer has it"),
    ],
)
def test_a_text_encoder_that_does_not_know_its_tokens_is_refused(both, sizes: dict, message: str, tmp_path) -> None:
    folder = Path(shutil.copytree(both[0].model.folder.parent, tmp_path / "copy")) / "decoder"
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    multilingual_clip(config["hidden_size"], config["numDims"], **sizes).save_pretrained(folder / "text_encoder")
    with pytest.raises(CheckpointError, match=f"text_encoder/config.json: {message}"):
        Unclip.from_pretrained(folder, "cpu", "float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"norm_eps": 0}, "norm_eps is 0,"), ({"mid_block_scale_factor": 0.0}, "mid_block_scale_factor is 0.0,")],
)
def test_settings_that_would_divide_by_zero_are_refused(both, change: dict, message: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(both[0].model.folder.parent, tmp_path / "copy")) / "decoder"
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=f"unet/config.json: .*{message} and should be a number from"):
        Unclip.from_pretrained(folder, "cpu", "float32")


def test_every_component_is_checked(both) -> None:
    decoder = both[0].model.folder
    found = list(check_checkpoint(decoder))
    assert all(valid for _, _, valid in found), found
    texts = {component: text for component, text, _ in found}
    assert texts["tokenizer"] == "the tokenizer of XLM-R"
    assert texts["scheduler"].startswith("epsilon")
    assert texts["together"] == "the components fit"
    prior = list(check_checkpoint(decoder.parent / "kandinsky-2-1-prior"))
    assert all(valid for _, _, valid in prior), prior


def test_a_tokenizer_without_its_file_is_refused(both, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(both[0].model.folder.parent, tmp_path / "copy")) / "decoder"
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer.json is missing"):
        Unclip.from_pretrained(folder, "cpu", "float32")
