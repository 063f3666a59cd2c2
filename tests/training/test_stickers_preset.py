"""The preset stickers-cpu with smaller networks: vector sprites, layouts, Muon, an upsampler that restores."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unclip import Unclip
from unclip.errors import RecipeError
from unclip.models.decoder import Decoder
from unclip.models.layout import LAYOUT_SIZE, random_layout
from unclip.requests.request import Request
from unclip.training import recipe as recipes
from unclip.training import run
from unclip.training.batch import Batch
from unclip.training.recipe import load_recipe
from unclip.training.run import TrainingOptions
from unclip.training.tasks import upsampler
from unclip.training.tasks.redrawing import NOISE_LEVELS, Redrawing

SMALLER = {
    r"block_out_channels = \[\d+, \d+, \d+\]": "block_out_channels = [16, 24, 32]",
    r"layers_per_block = \d": "layers_per_block = 1",
    r"cross_attention_dim = \d+": "cross_attention_dim = 24",
    r"attention_head_dim = \d+": "attention_head_dim = 8",
    r"num_layers = \d": "num_layers = 1",
    r"(vision|text)_layers = \d": r"\1_layers = 1",
    r"(vision|text)_width = \d+": r"\1_width = 48",
    r"(vision|text)_heads = \d": r"\1_heads = 2",
    r"embed_dim = \d+": "embed_dim = 48",
    r"num_attention_heads = \d": "num_attention_heads = 2",
    r"batch_size = \d+": "batch_size = 4",
    r"compile = true": "compile = false\nworkers = 0",
    r"redraw_steps = \d": "redraw_steps = 3",
    r'(sampler = "[^"]+")\nsteps = \d+': r"\1\nsteps = 2",
}


@pytest.fixture(autouse=True)
def _quick(no_tensorboard: None) -> None:
    pass


@pytest.fixture(scope="module")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = (Path(recipes.__file__).parent / "recipes" / "stickers-cpu.toml").read_text()
    for pattern, replacement in SMALLER.items():
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    path = tmp_path_factory.mktemp("recipes") / "flat.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def out(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole chain, two steps a stage."""
    folder = tmp_path_factory.mktemp("flat")
    run.train("all", small_recipe, folder, TrainingOptions(device="cpu", quiet=True, steps=2))
    return folder


def test_the_whole_chain_trains_and_its_model_generates(out: Path) -> None:
    pipe = Unclip.from_pretrained(out / "model", device="cpu", dtype="float32")
    network = pipe.model.decoder.network
    assert network.has_layouts and network.has_inpainting_inputs and pipe.model.styles == ("flat",)
    assert network.projection.config.layout_spread == 1 and network.projection.config.layout_vary
    assert pipe.model.vocabulary is not None and not {"flat", "cartoon"} & pipe.model.vocabulary
    requests = [Request(prompt="a penguin", seed=seed) for seed in (1, 2)]
    batch = [np.asarray(result.image, int) for result in pipe.generate(requests)]
    alone = np.asarray(pipe.generate(requests[1])[0].image, int)
    assert batch[0].shape == (256, 256, 3) and np.abs(batch[1] - alone).max() <= 1
    layouts = network.random_layouts([1, 2])
    assert torch.equal(layouts, torch.tensor([random_layout(seed, 1) for seed in (1, 2)]))


def test_a_run_with_layouts_and_muon_resumes_exactly(out: Path, small_recipe: Path, tmp_path: Path) -> None:
    options = TrainingOptions(device="cpu", quiet=True, init=out / "model")
    constant = tmp_path / "constant.toml"
    constant.write_text(re.sub(r"decay = [\d.]+", "decay = 0.0", small_recipe.read_text()))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run.train("decoder", constant, whole, TrainingOptions(**{**vars(options), "steps": 3}))
    run.train("decoder", constant, parts, TrainingOptions(**{**vars(options), "steps": 1}))
    run.train("decoder", constant, parts, TrainingOptions(device="cpu", quiet=True, steps=3, resume=True))
    first, second = (load_file(each / "decoder" / "state.safetensors") for each in (whole, parts))
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())
    assert first["weights.projection.layout_proj.weight"].shape[1] == LAYOUT_SIZE


def test_the_vocabulary_has_the_styles_that_all_stages_name(small_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "styles.toml"
    text = small_recipe.read_text().replace('styles = "flat"', 'styles = ["flat", "cartoon"]')
    path.write_text(text)
    recipe = load_recipe(path)
    assert run.style_words(recipe) == run.styles(recipe) == ("flat", "cartoon")
    assert run.style_words(load_recipe(small_recipe)) == ()
    path.write_text(
        text.replace('styles = ["flat", "flat", "cartoon"]\n', "").replace('styles = ["flat", "cartoon"]', "")
    )
    assert run.styles(load_recipe(path)) == ("noto",)


def test_small_images_are_drawn_anew_by_the_decoder(
    out: Path, small_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(small_recipe)
    redrawing = Redrawing.load(out / "model", torch.device("cpu"), 3)
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    captions, layouts = ["a cat"] * 4, torch.tensor([random_layout(i, 1) for i in range(4)])
    low = redrawing(images, captions, layouts, NOISE_LEVELS[0], range(4))
    assert low.shape == images.shape and not torch.allclose(low, images, atol=0.05)
    assert torch.equal(low, redrawing(images, captions, layouts, NOISE_LEVELS[0], range(4)))
    assert not torch.equal(low, redrawing(images, captions, layouts, NOISE_LEVELS[0], range(1, 5)))
    other = torch.tensor([random_layout(i + 4, 1) for i in range(4)])
    assert not torch.equal(low, redrawing(images, captions, other, NOISE_LEVELS[0], range(4)))

    def task_with(redrawn: float) -> upsampler.UpsamplerTask:
        stage = recipe.stage("upsampler")
        options = stage.task.model_copy(update={"redrawn": redrawn, "blur": 0.0, "noise": 0.0})
        task = upsampler.UpsamplerTask(replace(stage, task=options), lambda size, count=16: (images, captions))
        task.redrawing = redrawing
        return task

    large = torch.rand(4, 3, 256, 256) * 2 - 1
    small = task_with(0.0).downsample(large)

    def batch_of(seed: int) -> Batch:
        return Batch(large, captions, torch.Generator().manual_seed(seed), layouts=layouts)

    rows, redrawn = task_with(1.0).redraw(batch_of(0))
    assert rows.tolist() == [0, 1, 2, 3] and redrawn.shape == small.shape
    assert not torch.allclose(redrawn, small, atol=0.05)
    some, _ = task_with(0.5).redraw(batch_of(1))
    assert 0 < len(some) < 4
    seen = []
    for fraction in (0.0, 1.0):
        task = task_with(fraction)
        monkeypatch.setattr(upsampler, "enlarge", lambda image, size: (seen.append(image), torch.zeros(4, 3, *size))[1])
        task.loss(task.network, batch_of(0))
    assert seen[0].shape == seen[1].shape == (4, 3, 32, 32) and not torch.allclose(seen[0], seen[1], atol=0.05)


def test_an_upsampler_of_crops_trains_without_a_decoder(small_recipe: Path, tmp_path: Path) -> None:
    text = small_recipe.read_text().replace("redrawn = 0.65", "redrawn = 0.0").replace("crop = 128", "crop = 64")
    text = text.replace("[upsampler.data]\nlayouts = true\nspread = 1", "[upsampler.data]\ncrop = 64")
    path = tmp_path / "crops.toml"
    path.write_text(text)
    run.train("upsampler", path, tmp_path / "out", TrainingOptions(device="cpu", quiet=True, steps=2))
    assert (tmp_path / "out" / "upsampler" / "samples").is_dir()
    index = json.loads((tmp_path / "out" / "model" / "model_index.json").read_text())
    assert index["stages"]["upsampler"]["size"] == [256, 256]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("vary = true", "vary = true\nlayouts = true", r"\[data\]: layouts belongs into the data table of one stage"),
        ("[clip.data]", "[clip.data]\nlayouts = true", r"\[clip.data\]: layouts are for the decoders"),
        ("[decoder.data]", "[decoder.data]\ncrop = 32", r"\[decoder.data\]: crop is for an upsampler without redrawn"),
        ("redrawn = 0.65", "redrawn = 0.0", r"\[upsampler.data\]: layouts are for the decoders, and for an upsampler"),
        ("spread = 1\n\n[upsampler.model]", "crop = 64\n[upsampler.model]", "crop is for an upsampler without redrawn"),
    ],
)
def test_layouts_and_crops_are_refused_where_they_have_no_use(
    small_recipe: Path, tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = small_recipe.read_text()
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(tmp_path / "wrong.toml")
    assert "\n" not in str(caught.value)


def test_a_restorer_needs_a_trained_decoder(small_recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="redrawn = 0.65 .* needs a trained decoder in .*run `unclip train decoder`"):
        run.train("upsampler", small_recipe, tmp_path, TrainingOptions(device="cpu", quiet=True, steps=2))


@pytest.mark.parametrize("source", ["teacher", "images"])
def test_a_student_is_told_the_layouts_that_its_teacher_was_told(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    seen: list[torch.Tensor | None] = []
    condition = Decoder.condition

    def spy(self: Decoder, *args: Any, **options: Any) -> dict[str, torch.Tensor]:
        seen.append(options.get("layout"))
        return condition(self, *args, **options)

    monkeypatch.setattr(Decoder, "condition", spy)
    path = tmp_path / "distil.toml"
    table = (
        f'[distill]\nsource = "{source}"\nknown = 0.0\nlevels = 1\nsamples = 0\nfit = {{ batch_size = 2, workers = 0 }}'
    )
    data = 'kind = "scenes"\nstyles = "flat"\nvary = true\n'
    options = TrainingOptions(device="cpu", quiet=True, distill="guidance", teacher=out / "model", steps=1)
    if source == "images":
        path.write_text(f"[data]\n{data}\n{table}")
        with pytest.raises(RecipeError, match=r"has layouts: set layouts = true in \[data\]"):
            run.train("decoder", path, tmp_path / "refused", options)
        data += "layouts = true\n"
    seen.clear()
    path.write_text(f"[data]\n{data}\n{table}")
    run.train("decoder", path, tmp_path / "out", options)
    assert seen and all(layout is not None and layout.abs().sum() > 0 for layout in seen)
