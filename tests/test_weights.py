"""The bundled model, end to end: what is asked for is in the picture, by a check that knows nothing of the model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import Unclip
from unclip.cli.main import main
from unclip.diffusion.noise import make_generators
from unclip.inference.run_context import Run, SamplingOptions
from unclip.requests.fields import PRIORS
from unclip.requests.request import Request
from unclip.stickers.captions import nouns_in
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.recognition.checker import check, find_background, find_objects
from unclip.system.resources import bundled

PROMPT = "a penguin on a pink background"
STYLE = "flat"
OBJECTS = (("penguin", "pink"), ("strawberry", "white"), ("snowman", "blue"), ("pumpkin", "turquoise"))


@pytest.fixture(scope="module")
def stickers() -> Unclip:
    return Unclip.from_pretrained("stickers", device="cpu", dtype="float32")


def test_named_objects_on_named_backgrounds(stickers):
    for noun, colour in OBJECTS:
        found = 0
        for result in stickers.generate(f"a {noun} on a {colour} background", n=8, seed=11, size=64):
            assert find_background(result.image).name == colour, result.request
            assert not result.notes
            found += any(noun in each.candidates for each in find_objects(result.image, style=STYLE))
        assert found >= 6, f"{found} of 8: {noun}"


def test_the_autoregressive_prior_samples_the_embedding_of_its_text(stickers):
    prompts = [f"a {noun} on a {colour} background" for noun, colour in OBJECTS]
    results = stickers.generate(prompts, n=2, seed=11, size=64, prior="autoregressive")
    found = 0
    for result in results:
        noun, colour = OBJECTS[prompts.index(result.request.prompt)]
        assert result.request.prior == "autoregressive" and find_background(result.image).name == colour
        found += any(noun in each.candidates for each in find_objects(result.image, style=STYLE))
    assert found >= 6
    model = stickers.model
    run = Run(make_generators([1] * 4), model.device, SamplingOptions(prior="autoregressive"))
    text = model.encode_text(prompts)
    embed = model.sample_prior(text, model.encode_text([""] * 4), run)
    assert (cosines(embed, text.embed).argmax(1) == torch.arange(4)).all()
    images = stickers.embed_image([result.image for result in results[::2]])
    assert cosines(embed, images).diagonal().mean() > 0.8


def cosines(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The cosine similarities `n m` of `n d` and `m d`."""
    return torch.cosine_similarity(a[:, None], b[None], dim=-1)


def test_two_objects_stand_where_they_are_asked_for(stickers):
    nouns, styles = nouns_in(stickers.model.vocabulary), stickers.model.styles
    assert styles == (STYLE,)
    asked = sample_prompts(16, seed=3, kinds=("pair",), split="held_out", nouns=nouns, styles=styles)
    results = stickers.generate([Request(prompt=prompt, seed=i, size=64) for i, (prompt, _) in enumerate(asked)])
    right = [check(result.image, scene).all for result, (_, scene) in zip(results, asked, strict=True)]
    assert sum(right) >= 13, [prompt for (prompt, _), good in zip(asked, right, strict=True) if not good]


def test_score_tells_right_from_wrong(stickers):
    [result] = stickers.generate("a penguin on a pink background", seed=7, size=64)
    right, wrong = stickers.score([result.image] * 2, ["a penguin on a pink background", "a car on a black background"])
    assert right > wrong + 0.3
    assert result.score == pytest.approx(right, abs=0.05)  # scored from the picture before it became bytes


@pytest.mark.parametrize("prior", PRIORS)
def test_a_batch_changes_nothing(stickers, prior):
    prompts = ["two owls on a green background", "a penguin on a pink background", "a car", "a red apple"]
    together = stickers.generate(prompts, seed=5, prior=prior)
    for result in together:
        [alone] = stickers.generate(result.request)
        difference = max(abs(a - b) for a, b in zip(alone.image.tobytes(), result.image.tobytes(), strict=True))
        assert difference <= 1
    again = stickers.generate(prompts, seed=5, prior=prior)
    assert [r.image.tobytes() for r in again] == [r.image.tobytes() for r in together]


def test_the_second_upsampler_sharpens_and_keeps_the_image(stickers):
    small, large = (stickers.generate(PROMPT, seed=7, size=size)[0].image for size in (None, 1024))
    assert (small.size, large.size) == ((256, 256), (1024, 1024))
    plain = np.asarray(small.resize(large.size, Image.Resampling.BICUBIC), np.float32)
    restored = np.asarray(large, np.float32)
    assert np.abs(restored - plain).mean() < 6
    steepest = [np.sort(np.abs(np.diff(each, axis=1)).max(-1).ravel())[-5000:].mean() for each in (plain, restored)]
    assert steepest[1] > 1.4 * steepest[0]


def test_edits_use_the_inpainting_decoder(stickers):
    model = stickers.model
    assert model.inpainting_decoder is not None and model.inpainting_decoder is not model.decoder
    [scene] = stickers.generate("a fox on a blue background", seed=1, size=64)
    mask = Image.new("L", (64, 64), 255)
    mask.paste(0, (0, 0, 64, 8))
    [edited] = stickers.inpaint(scene.image, mask, "an apple on a blue background", seed=1)
    assert any("apple" in each.candidates for each in find_objects(edited.image, style=STYLE))
    kept = slice(0, 8)
    assert np.array_equal(np.asarray(edited.image)[kept], np.asarray(scene.image)[kept])


def test_main_job(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["generate", PROMPT, "-n", "2", "--seed", "7", "-o", str(out), "--json", "--quiet"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [7, 8]
    for line in lines:
        with Image.open(line["file"]) as image:
            assert image.size == (256, 256)
            assert find_background(image).name == "pink"
            assert any("penguin" in each.candidates for each in find_objects(image, style=STYLE))


def test_unknown_words_are_said(stickers):
    [result] = stickers.generate("a wizard on a pink background", seed=1, size=64, steps=1, prior_steps=1)
    assert len(result.notes) == 1
    assert "wizard" in result.notes[0]


def test_files_are_light():
    files = [path for path in bundled("weights", "stickers").rglob("*") if path.is_file()]
    assert all(path.suffix in (".safetensors", ".json", ".md") for path in files)
    assert max(path.stat().st_size for path in files) <= 16 * 2**20
    assert sum(path.stat().st_size for path in files) < 100e6
    card = Path(bundled("weights", "stickers", "README.md")).read_text(encoding="utf-8")
    assert "Licence" in card
