"""The inpainting decoder in a checkpoint: what it stores and shares, and how damage is reported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.tiny import DECODER, add_inpainting_decoder, tiny_network
from unclip.checkpoints import offload
from unclip.checkpoints.convert import convert_checkpoint
from unclip.checkpoints.decoder_copy import NAME
from unclip.checkpoints.identity import compute_revision
from unclip.checkpoints.index import INDEX
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.networks import save_network
from unclip.checkpoints.verify import check_checkpoint
from unclip.cli.main import main
from unclip.errors import CheckpointError
from unclip.inference.model import UnclipModel
from unclip.pipeline import Unclip
from unclip.system.files import read_json

OWN = ("decoder.conv_in", "decoder.up_blocks.1")


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an inpainting decoder; for reading only."""
    return add_inpainting_decoder(Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("made") / "model")), *OWN)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(made, tmp_path / "model"))


def load(folder: Path, memory: str = "high") -> UnclipModel:
    return load_checkpoint(folder, torch.device("cpu"), torch.float32, memory)


def networks(folder: Path) -> tuple[nn.Module, nn.Module]:
    """The networks of the decoder and of the inpainting decoder."""
    model = load(folder)
    assert model.inpainting_decoder is not None
    return model.decoder.network, model.inpainting_decoder.network


def test_only_the_tensors_that_differ_are_stored(made: Path) -> None:
    stored = load_file(made / NAME / "model.safetensors")
    assert stored and all(name.startswith(OWN) for name in stored)
    assert not {f"decoder.{name}" for name, _ in tiny_decoder() if f"decoder.{name}".startswith(OWN)} - stored.keys()
    assert read_json(made / NAME / "config.json")["tensors"] == sorted(stored)


def tiny_decoder():
    return tiny_network("UNet2DConditionModel", DECODER).named_parameters()


def test_the_others_are_those_of_the_decoder_in_memory(made: Path) -> None:
    base, copy = (network.state_dict() for network in networks(made))
    assert base.keys() == copy.keys()
    for name in base:
        own = name.replace("unet.", "decoder.", 1).startswith(OWN)
        assert (base[name].data_ptr() == copy[name].data_ptr()) != own, name
        assert torch.equal(base[name], copy[name]) != own, name


def test_the_settings_are_its_own(made: Path) -> None:
    model = load(made)
    stage = model.edit_decoder
    assert stage is model.inpainting_decoder
    assert (stage.steps, stage.sampler, stage.guidance, model.shown_above) == (3, "ddim", 1.5, 0.9)
    assert (model.decoder.steps, model.decoder.sampler) == (4, "dpmpp-2m")
    assert model.sizes == [(16, 16), (32, 32)]


def test_a_projection_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    folder = add_inpainting_decoder(Path(shutil.copytree(tiny_model, tmp_path / "model")), "text_proj.embedding_proj")
    base, copy = networks(folder)
    assert base.unet is copy.unet and base.text_encoder is copy.text_encoder
    ours, theirs = base.projection.state_dict(), copy.projection.state_dict()
    assert {name for name in ours if not torch.equal(ours[name], theirs[name])} == {
        "embedding_proj.weight",
        "embedding_proj.bias",
    }
    assert base.null_embed.data_ptr() == copy.null_embed.data_ptr()


def test_a_copy_without_a_change(tiny_model: Path, tmp_path: Path) -> None:
    folder = add_inpainting_decoder(Path(shutil.copytree(tiny_model, tmp_path / "model")), "nothing")
    base, copy = networks(folder)
    assert base.unet is copy.unet and base.projection is copy.projection


def test_with_low_memory_it_replaces_the_decoder_in_memory(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "SMALL", 64)  # default 65,536: tiny networks have no tensor that large
    high = Unclip.from_pretrained(made, "cpu", "float32", "high")
    low = Unclip.from_pretrained(made, "cpu", "float32", "low")
    from PIL import Image

    image, mask = Image.new("RGB", (32, 32), "red"), Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 32, 32))
    for mode in ("generate", "inpaint", "generate"):
        given = ("a cat",) if mode == "generate" else (image, mask, "a cat")
        first, second = (getattr(pipe, mode)(*given, seed=3)[0].image.tobytes() for pipe in (high, low))
        assert first == second


def test_a_lora_changes_both_decoders(made: Path, tmp_path: Path) -> None:
    """Of the layers one is shared, and one is the inpainting decoder's own."""
    shared, own = "down_blocks.0.resnets.0.conv1", "up_blocks.1.resnets.0.conv1"
    before = [network.unet.state_dict() for network in networks(made)]
    tensors = {}
    for name in (shared, own):
        out, inputs, *_ = before[0][f"{name}.weight"].shape
        tensors[f"{name}.lora_A.weight"] = torch.ones(1, inputs, 3, 3)
        tensors[f"{name}.lora_B.weight"] = torch.ones(out, 1, 1, 1)
    save_file(tensors, tmp_path / "one.safetensors")
    pipe = Unclip.from_pretrained(made, "cpu", "float32", lora=tmp_path / "one.safetensors")
    for stage, old in zip((pipe.model.decoder, pipe.model.edit_decoder), before, strict=True):
        new = stage.network.unet.state_dict()
        for name in (shared, own):
            torch.testing.assert_close(new[f"{name}.weight"], old[f"{name}.weight"] + 1)
    [first, second] = (
        stage.network.unet.state_dict()[f"{shared}.weight"] for stage in (pipe.model.decoder, pipe.model.edit_decoder)
    )
    assert first.data_ptr() == second.data_ptr()


# ---- damage


def failure(folder: Path) -> str:
    """The message of the CheckpointError with which a model does not load; `models check` reports the same."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    found = [finding.text for finding in check_checkpoint(folder) if not finding.valid]
    assert found == [str(caught.value)]
    return found[0]


def edit(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / NAME / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_tensors_that_are_missing_unexpected_or_misshapen_are_named(model: Path) -> None:
    rewrite(model, lambda tensors: tensors.pop("decoder.conv_in.bias"))
    assert "lacks tensors: decoder.conv_in.bias" in failure(model)
    rewrite(model, lambda tensors: tensors.update({"decoder.conv_in.bias": torch.zeros(3)}))
    assert "has misshapen tensors: decoder.conv_in.bias" in failure(model)
    rewrite(model, lambda tensors: tensors.update({"decoder.conv_in.bias": torch.zeros(16), "x": torch.zeros(1)}))
    assert "has unexpected tensors: x" in failure(model)


def test_damaged_configs(model: Path) -> None:
    path = model / NAME / "config.json"
    whole = path.read_text()
    changes = {
        "tensors is 5": lambda config: config.update(tensors=5),
        "lists a tensor 'nothing', which the decoder does not have": lambda config: config["tensors"].append(
            "decoder.nothing"
        ),
        "describes no network for the tensor 'clip.weight'": lambda config: config["tensors"].append("clip.weight"),
        "describes a network '../x'": lambda config: config["networks"].update({"../x": {}}),
        "unknown network class": lambda config: config["networks"]["decoder"].pop("_class_name"),
        "networks is missing": lambda config: config.pop("networks"),
        "the config does not fit": lambda config: config["networks"]["decoder"].update(time_cond_proj_dim="x"),
        "'norm_num_groups' = 4, and ": lambda config: config["networks"]["decoder"].update(norm_num_groups=4),
        "'_class_name' = 'UNet2DModel', and ": lambda config: config["networks"]["decoder"].update(
            _class_name="UNet2DModel"
        ),
    }
    for message, change in changes.items():
        edit(path, change)
        assert message in failure(model)
        path.write_text(whole)
    path.unlink()
    assert "config.json" in failure(model)


def test_a_decoder_that_was_trained_since_is_noticed(model: Path) -> None:
    save_network(tiny_network("UNet2DConditionModel", DECODER, 5), model / "decoder")
    assert "was made of another decoder" in failure(model)


def test_the_same_decoder_in_float32_or_in_shards_is_not_another(model: Path) -> None:
    expected = networks(model)[1].state_dict()
    for part in ("decoder", "text_proj"):
        tensors = {name: tensor.float() for name, tensor in load_file(model / part / "model.safetensors").items()}
        save_file(tensors, model / part / "model.safetensors")
    found = networks(model)[1].state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_stage_without_its_folder_and_a_folder_without_its_stage(model: Path) -> None:
    edit(model / INDEX, lambda index: index["stages"].pop(NAME))
    with pytest.raises(CheckpointError, match="lists no inpainting_decoder"):
        load(model)
    edit(model / INDEX, lambda index: index.pop(NAME))
    assert load(model).inpainting_decoder is None


# ---- whatever else reads a checkpoint


def test_pickled_weights_are_converted(model: Path, tmp_path: Path) -> None:
    path = model / NAME / "model.safetensors"
    torch.save(load_file(path), model / NAME / "model.bin")
    path.unlink()
    assert "unclip models convert" in failure(model)
    assert len(list(convert_checkpoint(model, tmp_path / "new"))) == 1
    assert load(tmp_path / "new").inpainting_decoder is not None


def test_its_weights_count_for_the_revision(made: Path, model: Path) -> None:
    assert compute_revision(made) == compute_revision(model)
    rewrite(model, lambda tensors: tensors["decoder.conv_in.bias"].add_(1))
    assert compute_revision(made) != compute_revision(model)


def test_the_command_line_shows_and_checks_it(made: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["models", "check", str(made)]) == 0
    assert "1 file; the others are the decoder's" in capsys.readouterr().out
    assert main(["models", "show", str(made)]) == 0
    shown = capsys.readouterr().out
    assert "sizes       16x16, 32x32\n" in shown and f"{NAME}  " in shown


def test_the_help_of_edits_has_its_defaults(made: Path, capsys: pytest.CaptureFixture) -> None:
    for command, steps in (("inpaint", 3), ("outpaint", 3), ("generate", 4)):
        assert main([command, "--model", str(made), "--help"]) == 0
        assert f"the model's: {steps}]" in " ".join(capsys.readouterr().out.split())
