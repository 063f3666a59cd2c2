"""Training of the inpainting decoder: from the run's decoder, in part, and exported as what has changed."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.tiny import add_inpainting_decoder, use_clip_embedding
from tests.training.tasks.helpers import example_images, seeded
from unclip import Unclip
from unclip.checkpoints.decoder_copy import NAME
from unclip.checkpoints.layouts.native import load_decoder_alone
from unclip.checkpoints.trainable import open_decoder
from unclip.cli.main import main
from unclip.errors import CheckpointError, InputError, RecipeError
from unclip.system.files import read_json
from unclip.training import run
from unclip.training.batch import Batch
from unclip.training.recipe import load_recipe
from unclip.training.run import TrainingOptions
from unclip.training.stages import new_task
from unclip.training.tasks.base import Task

PARTS = ("decoder.conv_in", "decoder.up_blocks.1", "text_proj.embedding_proj")
TRAINED = 'trained = ["conv_in", "up_blocks.1", "text_proj.embedding_proj"]\n'


def train(stage: str, recipe: Path, out: Path, **options) -> Path:
    return run.train(stage, recipe, out, TrainingOptions(**{"device": "cpu", "quiet": True, "steps": 2, **options}))


@pytest.fixture(autouse=True)
def _quick(no_tensorboard) -> None:
    pass


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe, which trains a part of the inpainting decoder."""
    text = tiny_recipe.read_text(encoding="utf-8").replace("[inpainting_decoder.task]\n", f"[{NAME}.task]\n{TRAINED}")
    path = tmp_path_factory.mktemp("recipes") / "part.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of CLIP, the decoder and its copy; for reading only."""
    out = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        for stage in ("clip", "decoder", NAME):
            train(stage, recipe, out)
    return out


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to continue."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def stored(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / NAME / "model.safetensors")


def test_the_trained_parts_are_exported_and_no_others(made: Path) -> None:
    names = stored(made).keys()
    assert {part for part in PARTS if any(name.startswith(part) for name in names)} == set(PARTS)
    assert all(name.startswith(PARTS) for name in names)
    state = load_file(made / NAME / "state.safetensors")
    for name, tensor in stored(made).items():  # the averaged weights
        own = name.replace("decoder.", "unet.", 1).replace("text_proj.", "projection.", 1)
        assert torch.equal(tensor, state[f"ema.{own}"].half())
    index = read_json(made / "model" / "model_index.json")
    assert index[NAME] == ["unclip", "InpaintingDecoder"]
    assert index["stages"][NAME] == {"sampler": "ddim", "steps": 3, "guidance": 1.0, "shown_above": 1.0}
    assert f"{NAME}_scheduler" not in index


def test_more_steps_go_on_from_the_state(recipe: Path, made: Path, out: Path) -> None:
    train(NAME, recipe, out, steps=3, resume=True)
    assert (
        read_json(out / "model" / NAME / "config.json")["shared"]
        == read_json(made / "model" / NAME / "config.json")["shared"]
    )
    assert any(not torch.equal(tensor, stored(made)[name]) for name, tensor in stored(out).items())


def test_another_decoder_makes_it_useless(recipe: Path, out: Path, capsys: pytest.CaptureFixture) -> None:
    train("decoder", recipe, out, steps=2, resume=True)  # exports the same weights again
    assert NAME in read_json(out / "model" / "model_index.json")
    train("decoder", recipe, out, steps=4, resume=True)
    index = read_json(out / "model" / "model_index.json")
    assert NAME not in index and NAME not in index["stages"]
    assert "train it again, from this decoder" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="decoder fingerprint"):
        train(NAME, recipe, out, steps=4, resume=True)
    shutil.rmtree(out / NAME)
    train(NAME, recipe, out)
    assert NAME in read_json(out / "model" / "model_index.json")


def test_mistakes_are_reported_before_the_training(recipe: Path, tiny_recipe: Path, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "model" / "clip", tmp_path / "new" / "model" / "clip")
    with pytest.raises(RecipeError, match="needs a trained decoder in .*: run `unclip train decoder` first"):
        train(NAME, recipe, tmp_path / "new")
    with pytest.raises(InputError, match="starts from the decoder in --out: leave out --init"):
        train(NAME, recipe, tmp_path / "new", init=made / "model")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(recipe.read_text().replace('"up_blocks.1"', '"up_block.1"'))
    with pytest.raises(
        RecipeError, match=r"wrong.toml \[inpainting_decoder.task\]: trained names 'up_block.1'.* did you"
    ):
        run.check("all", wrong, None, TrainingOptions(device="cpu", quiet=True))
    wrong.write_text(recipe.read_text().replace(TRAINED, "patch = 2\n"))
    with pytest.raises(RecipeError, match=r"\[inpainting_decoder.task\].*patch"):
        load_recipe(wrong)
    assert not (tmp_path / "new" / NAME).exists()


def test_the_command_line_knows_the_stage(recipe: Path, out: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["train", "inpainting-decoder", "--recipe", str(recipe), "--out", str(out), "--device", "cpu", "--quiet"]
    assert main([*words, "--resume", "--check"]) == 0
    assert main([*words, "--steps", "2"]) == 2
    assert "add --resume" in capsys.readouterr().err


@pytest.fixture(scope="module")
def task(recipe: Path, made: Path) -> Task:
    from unclip.training.tasks.frozen_clip import FrozenClip

    cpu = torch.device("cpu")
    table = load_recipe(recipe).stage(NAME)
    clip = FrozenClip.load(made / "model" / "clip", cpu)
    return new_task(NAME, table, clip, example_images, open_decoder(made / "model", cpu))


def test_only_the_chosen_parts_get_gradients(task: Task) -> None:
    images, captions = example_images(task.size, 4)
    loss, _ = task.loss(task.network, Batch(images, captions, seeded()))
    loss.backward()
    for name, parameter in task.network.named_parameters():
        own = name.replace("unet.", "decoder.", 1).replace("projection.", "text_proj.", 1).startswith(PARTS)
        assert (parameter.grad is not None) == parameter.requires_grad == own, name


def test_it_starts_as_the_decoder(made: Path, task: Task) -> None:
    from unclip.checkpoints.component_loader import ComponentLoader

    decoder = load_decoder_alone(ComponentLoader(made / "model", torch.device("cpu"), torch.float32))
    ours, theirs = task.network.state_dict(), decoder.network.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("shares", [False, True])
def test_a_distilled_decoder_leaves_edits_as_they_were(
    tiny_model: Path, pictures: Path, tmp_path: Path, shares: bool
) -> None:
    """The student has an input for the guidance scale, which its inpainting decoder has not."""
    teacher = Path(shutil.copytree(tiny_model, tmp_path / "teacher"))
    if shares:
        use_clip_embedding(teacher)
    add_inpainting_decoder(teacher, "decoder.conv_in")
    recipe = tmp_path / "distill.toml"
    recipe.write_text(
        f'[data]\nkind = "folder"\npath = "{pictures}"\n[distill]\nguidance = [1, 3]\nsource = "images"\nlevels = 1\n'
        "samples = 0\n[distill.fit]\nbatch_size = 2\nworkers = 0\n"
    )
    student = train("decoder", recipe, tmp_path / "out", teacher=teacher, distill="guidance")
    configs = [read_json(folder / "decoder_text" / "config.json") for folder in (teacher, student)]
    assert [config.get("_token_embedding") for config in configs] == ["clip" if shares else None] * 2
    before, after = (Unclip.from_pretrained(folder, "cpu", "float32") for folder in (teacher, student))
    assert after.model.decoder.distillation is not None and after.model.edit_decoder.distillation is None
    image, mask = Image.new("RGB", (32, 32), "red"), Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 24))
    first, second = (pipe.inpaint(image, mask, "a cat", seed=1)[0] for pipe in (before, after))
    assert first.image.tobytes() == second.image.tobytes()
    assert (second.request.steps, second.request.guidance) == (3, 1.5)
