"""Recipes: their values, the errors for mistakes, and the presets."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import init_empty_weights

from unclip.errors import DataError, RecipeError
from unclip.models.clip import Clip
from unclip.models.tokenizer import Tokenizer
from unclip.training.recipe import check_sizes, load_recipe, presets
from unclip.training.recipe_tables import STAGES, Fit, Sampling
from unclip.training.tasks.autoregressive_prior import AutoregressivePriorTask
from unclip.training.tasks.clip import ClipTask
from unclip.training.tasks.decoder import DecoderTask
from unclip.training.tasks.options import DecoderOptions, InpaintingDecoderOptions, UpsamplerOptions
from unclip.training.tasks.prior import PriorTask
from unclip.training.tasks.upsampler import UpsamplerTask

DATA = '[data]\nkind = "scenes"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_recipe_is_read(tmp_path: Path):
    text = 'name = "n"\nseed = 4\n' + DATA + "[decoder.model]\nsize = 32\nblock_out_channels = [32, 64]\n"
    text += '[decoder.fit]\nlr = 1\nsteps = 7\n[decoder.sampling]\nsampler = "unipc"\n'
    recipe = load_recipe(written(tmp_path, text))
    assert (recipe.name, recipe.seed, dict(recipe.data)) == ("n", 4, {"kind": "scenes"})
    decoder = recipe.stage("decoder")
    assert decoder.model == {"size": 32, "block_out_channels": (32, 64)}  # lists become tuples
    assert decoder.fit == Fit(lr=1, steps=7)
    assert decoder.sampling == Sampling(sampler="unipc")


def test_what_is_left_out_has_defaults(tmp_path: Path):
    recipe = load_recipe(written(tmp_path, DATA + "[clip]\n"))
    assert (recipe.name, recipe.seed, recipe.stage("clip").fit) == ("mine", 0, Fit())
    with pytest.raises(RecipeError, match=r"mine.toml has no table \[prior\]; .*stickers-cpu"):
        recipe.stage("prior")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DATA + "[decodr]", "unknown key 'decodr'; did you mean 'decoder'?"),
        (DATA + "[clip.fits]", "[clip]: unknown key 'fits'; did you mean 'fit'?"),
        (DATA + "[clip.task]", "[clip]: unknown key 'task'"),  # it has none: not accepted and ignored
        (DATA + "[clip.fit]\nbatchsize = 3", "[clip.fit]: unknown key 'batchsize'; did you mean 'batch_size'?"),
        (DATA + "[clip.fit]\nsteps = 3.5", "[clip.fit]: steps = 3.5 should be a whole number"),
        (DATA + "[clip.fit]\nsteps = true", "steps = True should be a whole number"),
        (DATA + "[clip.fit]\ncompile = 1", "compile = 1 should be true or false"),
        (DATA + '[clip.fit]\nlr = "1e-3"', "lr = '1e-3' should be a number"),
        (DATA + "[clip.fit]\nlr = nan", "lr = nan should be from 0 to 1"),
        (DATA + "[clip.fit]\nbatch_size = 0", "batch_size = 0 should be 1 or more"),
        (DATA + "[clip.fit]\nclip_norm = 0", "[clip.fit]: clip_norm = 0 should be 1e-06 or more"),
        (DATA + "[prior.fit]\ndecay = 1.5", "[prior.fit]: decay = 1.5 should be from 0 to 1"),
        (DATA + '[prior.sampling]\nsampler = "euler"', "[prior.sampling]: sampler = 'euler' should be one of unclip,"),
        (DATA + "[prior.sampling]\nsteps = 0", "steps = 0 should be from 1 to 1000"),
        ("prior = 3\n" + DATA, "prior = 3 should be a table"),
        (DATA + "[prior]\nfit = 3", "[prior]: fit = 3 should be a table"),
        ("data = 3", "data = 3 should be a table"),
        ("name = 3\n" + DATA, "name = 3 should be a string"),
        ("seed = -1\n" + DATA, "seed = -1 should be from 0"),
        ("seed = 1.5\n" + DATA, "seed = 1.5 should be a whole number"),
        ("[clip]", "has no [data] table"),
        ("[clip", "is not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_table(tmp_path: Path, text: str, says: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(written(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "mine.toml"))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_mistake_in_the_data_is_named_with_its_file_and_table(tmp_path: Path):
    with pytest.raises(DataError, match=r"mine.toml \[data\]: .* unknown key 'splits'; did you mean 'split'"):
        load_recipe(written(tmp_path, DATA + "splits = 3\n[clip]"))


@pytest.mark.parametrize("name", ["stickers-tpu", "missing.toml", "../stickers-cpu", "nul\0", ".", ""])
def test_an_unknown_recipe_lists_the_presets(name: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(name)
    if "\0" not in name:
        assert "stickers-cpu, stickers-gpu" in str(caught.value)


def clip_of(clip: Clip) -> SimpleNamespace:
    """What the other tasks need of a trained CLIP."""
    tokenizer = Tokenizer(clip.config.context_length)
    return SimpleNamespace(
        clip=clip,
        device=torch.device("cpu"),
        encode_images=lambda images: torch.randn(len(images), clip.config.embed_dim),
        encode_text=torch.no_grad()(lambda captions: clip.encode_tokens(tokenizer(captions))),
    )


def examples(size: int, count: int = 16) -> tuple[torch.Tensor, list[str]]:
    return torch.zeros(count, 3, size, size), ["a cat", "a dog"] * (count // 2)


def test_the_preset_of_fine_tuning_takes_its_data_from_the_command(tmp_path):
    recipe = load_recipe("finetune", tmp_path)
    assert not recipe.stages and recipe.data == {"kind": "folder", "path": str(tmp_path)}
    assert recipe.finetune.fit_for(lora=True).lr == 10 * recipe.finetune.fit_for(lora=False).lr == 1e-4
    shards = load_recipe("stickers-cpu", "part-{0..3}.tar")
    assert shards.data_table("clip") == {"kind": "webdataset", "shards": "part-{0..3}.tar"}


def test_the_presets_of_distillation(tmp_path):
    path = tmp_path / "prompts.txt"
    recipe = load_recipe("distill", path)
    assert not recipe.stages and recipe.data == {"kind": "prompts", "path": str(path)}
    bundled = load_recipe("distill-stickers")
    assert not bundled.stages and bundled.data_table() == load_recipe("stickers-cpu").data_table("decoder")
    for each in (recipe.distill, bundled.distill):
        assert each.teacher_steps % each.segments == 0


@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("stickers")])
def test_the_presets_make_networks(name: str):
    recipe = load_recipe(name)
    assert set(recipe.stages) == set(STAGES)
    clip = ClipTask(recipe.stage("clip"))
    frozen = clip_of(clip.network)
    prior = PriorTask(recipe.stage("prior"), frozen, examples)
    codes = AutoregressivePriorTask(recipe.stage("autoregressive_prior"), frozen, examples)
    assert codes.network.config.buckets == 1024
    decoder = DecoderTask(recipe.stage("decoder"), frozen, examples)
    with init_empty_weights():
        upsampler = UpsamplerTask(recipe.stage("upsampler"), None)
    assert prior.network.transformer.config.embedding_dim == clip.network.config.embed_dim
    # What the bundled model promises: 64 px, then 256 px.
    assert (decoder.size, upsampler.options.small, upsampler.size) == (64, 64, 256)
    assert decoder.network.has_inpainting_inputs


def test_the_presets_share_their_interfaces():
    cpu, gpu = load_recipe("stickers-cpu"), load_recipe("stickers-gpu")
    assert cpu.name == gpu.name
    assert all(cpu.data[key] == gpu.data[key] for key in ("kind", "split"))  # the mixture of scenes may differ
    for key in ("embed_dim", "image_size", "context_length", "text_width"):
        assert cpu.stage("clip").model[key] == gpu.stage("clip").model[key]
    for stage, keys in {"decoder": ["patch"], "upsampler": ["size", "small"]}.items():
        assert all(getattr(cpu.stage(stage).task, key) == getattr(gpu.stage(stage).task, key) for key in keys)


def test_the_upsampler_takes_the_decoders_size(tiny_recipe: Path):
    recipe = load_recipe(tiny_recipe)
    check_sizes(recipe)
    larger = replace(recipe.stage("decoder"), model={**recipe.stage("decoder").model, "size": 32})
    with pytest.raises(RecipeError) as caught:
        check_sizes(replace(recipe, stages={**recipe.stages, "decoder": larger}))
    assert "[upsampler.task] small = 16 must equal [decoder.model] size = 32" in str(caught.value)
    check_sizes(replace(recipe, stages={"decoder": larger}))


def test_a_mistake_in_a_later_stage_is_reported_at_once(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"\[decoder.task\]: known = 2 should be from 0 to 1"):
        load_recipe(written(tmp_path, DATA + "[clip]\n[decoder.task]\nknown = 2"))
    with pytest.raises(DataError, match=r"\[data\] and \[decoder.data\]: .*alike = 0 should be 1 or more"):
        load_recipe(written(tmp_path, DATA + "[clip]\n[decoder.data]\nalike = 0"))


@pytest.mark.parametrize("table", [Fit, Sampling, DecoderOptions, InpaintingDecoderOptions, UpsamplerOptions])
def test_every_option_has_a_description(table):
    assert all(field.description for field in table.model_fields.values())
