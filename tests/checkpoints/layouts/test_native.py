import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.tiny import (
    CLIP,
    DECODER,
    PRIOR,
    RESTORER,
    TEXT_PROJ,
    UPSAMPLER,
    add_second_upsampler,
    tiny_network,
)
from unclip.checkpoints import networks
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.networks import load_network, network_config, new_network, save_network
from unclip.diffusion.codecs import PixelUnshuffle
from unclip.diffusion.schedule import Schedule
from unclip.errors import CheckpointError
from unclip.system.files import read_json

NETWORKS = {
    "Clip": CLIP,
    "PriorTransformer": PRIOR,
    "TextProjection": TEXT_PROJ,
    "UNet2DConditionModel": DECODER,
    "UNet2DModel": UPSAMPLER,
}
CPU = torch.device("cpu")


def failure(call: Callable, *args) -> str:
    """The message of the CheckpointError that `call` raises: one line."""
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.fixture
def network() -> nn.Module:
    return tiny_network("TextProjection", TEXT_PROJ)


@pytest.fixture
def folder(network: nn.Module, tmp_path: Path) -> Path:
    """A component with its weights in one file."""
    save_network(network, tmp_path / "text_proj")
    return tmp_path / "text_proj"


@pytest.fixture
def shards(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A component with its weights in several files."""
    monkeypatch.setattr(networks, "SHARD_SIZE", "4KB")
    save_network(network, tmp_path / "text_proj")
    return tmp_path / "text_proj"


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


# ---- save and load


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_saved_network_loads_unchanged(kind: str, tmp_path: Path) -> None:
    network = tiny_network(kind, NETWORKS[kind])
    save_network(network, tmp_path / "part")
    loaded = load_network(tmp_path / "part")
    assert type(loaded) is type(network)
    assert network_config(loaded) == network_config(network)
    state, expected = loaded.state_dict(), network.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].half().float()), name
    assert not loaded.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loaded.parameters())
    assert not any(buffer.is_meta for buffer in loaded.buffers())


def test_weights_are_half_precision_safetensors_on_disk(folder: Path, network: nn.Module) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == network.state_dict().keys()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert json.loads((folder / "config.json").read_text()) == {
        "_class_name": "TextProjection",
        "clip_extra_context_tokens": 4,
        **TEXT_PROJ,
    }


def test_weights_load_in_another_precision(folder: Path, network: nn.Module, tmp_path: Path) -> None:
    loaded = load_network(folder, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    save_network(network, tmp_path / "exact", torch.float32)
    loaded = load_network(tmp_path / "exact")
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in loaded.state_dict().items())


def test_integers_stay_integers(tmp_path: Path) -> None:
    network = tiny_network("TextProjection", TEXT_PROJ)
    network.register_buffer("seen", torch.tensor(2**20 + 1))
    save_network(network, tmp_path / "part")
    assert load_file(tmp_path / "part" / "model.safetensors")["seen"] == 2**20 + 1


def test_large_weights_are_sharded_as_in_transformers(shards: Path, network: nn.Module) -> None:
    files = sorted(shards.glob("*.safetensors"))
    assert len(files) > 1
    assert max(file.stat().st_size for file in files) < 8000  # a header comes on top
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {key: file.name for file in files for key in load_file(file)}
    loaded = load_network(shards)
    assert all(torch.equal(t, network.state_dict()[name].half().float()) for name, t in loaded.state_dict().items())


def test_files_of_an_earlier_save_are_removed(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SHARD_SIZE", "15MB")
    network = tiny_network("TextProjection", TEXT_PROJ, seed=1)
    save_network(network, shards)
    assert sorted(path.name for path in shards.iterdir()) == ["config.json", "model.safetensors"]
    loaded = load_network(shards)
    assert torch.equal(loaded.embedding_proj.weight, network.embedding_proj.weight.half().float())
    monkeypatch.setattr(networks, "SHARD_SIZE", "4KB")
    save_network(network, shards)
    assert not (shards / "model.safetensors").exists()
    load_network(shards)


def test_networks_saved_by_diffusers_load(tmp_path: Path) -> None:
    network = tiny_network("UNet2DModel", UPSAMPLER)
    network.save_pretrained(tmp_path / "upsampler")
    loaded = load_network(tmp_path / "upsampler")
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in loaded.state_dict().items())


def test_a_checkpoint_has_its_stages_and_settings(tiny_model: Path) -> None:
    checkpoint = load_checkpoint(tiny_model, CPU, torch.bfloat16)
    assert checkpoint.name == "tiny"
    assert checkpoint.clip.logit_scale.dtype == torch.float32  # CLIP is never cut short
    assert next(checkpoint.decoder.network.parameters()).dtype == torch.bfloat16
    assert checkpoint.vocabulary == {"a", "cat", "dog", "on", "red", "blue"}
    prior, decoder, (upsampler,) = checkpoint.prior.stage, checkpoint.decoder, checkpoint.upsamplers
    assert (prior.shape, decoder.shape, upsampler.shape) == ((16,), (48, 4, 4), (48, 8, 8))
    assert (prior.sampler, prior.steps, prior.guidance) == ("ddim", 3, 1.5)
    assert (decoder.sampler, decoder.steps, decoder.guidance) == ("dpmpp-2m", 4, 2.0)
    assert prior.schedule == Schedule(prediction_type="sample", clip=5.0)
    assert decoder.schedule == Schedule(prediction_type="v_prediction")
    assert decoder.codec == upsampler.codec == PixelUnshuffle(4)
    assert decoder.network.has_inpainting_inputs


def test_upsampler_and_vocabulary_are_optional(model: Path) -> None:
    edit_json(model / "model_index.json", lambda index: (index["stages"].pop("upsampler"), index.pop("name")))
    (model / "vocabulary.json").unlink()
    checkpoint = load_checkpoint(model, CPU, torch.float32)
    assert (checkpoint.name, checkpoint.upsamplers, checkpoint.vocabulary) == ("copy", (), None)


# ---- damage


def test_a_weight_that_overflows_is_not_saved(network: nn.Module, tmp_path: Path) -> None:
    network.embedding_proj.bias[3] = 70000.0
    message = failure(save_network, network, tmp_path / "part")
    assert message.startswith("embedding_proj.bias holds values beyond float16: ")
    assert not (tmp_path / "part").exists()
    save_network(network, tmp_path / "part", torch.float32)
    assert load_network(tmp_path / "part").embedding_proj.bias[3] == 70000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(stages=None), "lists no prior"),
        (lambda index: index.update(stages=["prior"]), "lists no prior"),
        (lambda index: index["stages"].update(prior=None), "lists no prior"),
        (lambda index: index["stages"].update(upsampler=[]), "lists no upsampler"),
        (lambda index: index["stages"]["prior"].update(steps="x"), "steps must be a whole number"),
        (lambda index: index["stages"]["prior"].update(guidance=float("nan")), "NaN is not JSON"),
        (lambda index: index["stages"]["decoder"].update(sampler="dimm"), "did you mean 'ddim'"),
        (lambda index: index["stages"]["decoder"].update(sampler=None), "decoder: sampler is missing"),
        (lambda index: index["stages"]["decoder"].update(size=[16]), "size must be WIDTHxHEIGHT"),
        (lambda index: index["stages"]["decoder"].update(size=18), "both sides must be multiples of 4"),
        (lambda index: index["stages"]["decoder"].update(codec=4), "decoder: "),
        (lambda index: index["stages"]["decoder"]["codec"].update(factor="4"), "decoder: "),
        (lambda index: index["stages"]["decoder"]["codec"].update(factor=0), "decoder: "),
        (
            lambda index: index["stages"]["upsampler"].update(difference="no"),
            "must be true or false, not 'no'",
        ),
        (lambda index: index["stages"]["decoder"].update(difference=True), "decoder: difference must be false"),
        (
            lambda index: index["stages"]["decoder"].update(shown_above=1.5),
            "must be a number from 0 to 1, not 1.5",
        ),
        (
            lambda index: index["stages"]["decoder"].update(shown_above="no"),
            "number from 0 to 1, not 'no'",
        ),
    ],
)
def test_a_damaged_index(model: Path, change: Callable[[dict], object], message: str) -> None:
    edit_json(model / "model_index.json", change)
    found = failure(load_checkpoint, model, CPU, torch.float32)
    assert found.startswith(str(model / "model_index.json"))
    assert message in found


def test_difference_requires_a_prediction_of_x0(model: Path) -> None:
    edit_json(model / "model_index.json", lambda index: index["stages"]["upsampler"].update(difference=True))
    schedule = model / "upsampler_scheduler" / "scheduler_config.json"
    edit_json(schedule, lambda config: config.update(prediction_type="sample"))
    [upsampler] = load_checkpoint(model, CPU, torch.float32).upsamplers
    assert upsampler.network.difference
    edit_json(schedule, lambda config: config.update(prediction_type="epsilon"))
    assert "difference needs a scheduler that predicts sample" in failure(load_checkpoint, model, CPU, torch.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stages: stages.pop("upsampler"), "lists a second_upsampler, but no upsampler before it"),
        (lambda stages: stages["second_upsampler"].update(size=64), "do not fit the upsampler's images of 32x32"),
        (lambda stages: stages["second_upsampler"].update(steps=2), "second_upsampler: steps must be"),
        (lambda stages: stages["second_upsampler"].update(difference=True), "difference must be false"),
        (lambda stages: stages["upsampler"].update(size=[16, 16]), "do not fit the upsampler's images of 16x16"),
    ],
)
def test_a_damaged_second_upsampler(model: Path, change: Callable[[dict], object], message: str) -> None:
    add_second_upsampler(model)
    assert len(load_checkpoint(model, CPU, torch.float32).upsamplers) == 2
    edit_json(model / "model_index.json", lambda index: change(index["stages"]))
    assert message in failure(load_checkpoint, model, CPU, torch.float32)


def test_a_second_upsampler_of_other_sizes(model: Path) -> None:
    add_second_upsampler(model)
    edit_json(model / "second_upsampler" / "config.json", lambda config: config.update(widths=[8]))
    assert "widths is [8], and should be 2 whole numbers" in failure(load_checkpoint, model, CPU, torch.float32)
    save_network(tiny_network("Restorer", {**RESTORER, "channels": 12}), model / "second_upsampler")
    assert "does not fit its 12 channels" in failure(load_checkpoint, model, CPU, torch.float32)


@pytest.mark.parametrize("words", [None, "a cat", [["a"]]])
def test_a_damaged_vocabulary(model: Path, words: object) -> None:
    edit_json(model / "vocabulary.json", lambda value: value.update(words=words))
    assert "vocabulary.json: words" in failure(load_checkpoint, model, CPU, torch.float32)


def test_a_missing_stage_component_or_setting_is_named(model: Path) -> None:
    index = model / "model_index.json"
    good = index.read_text()
    for stage in ("prior", "decoder"):
        edit_json(index, lambda value, stage=stage: value["stages"].pop(stage))
        assert f"lists no {stage}" in failure(load_checkpoint, model, CPU, torch.float32)
        index.write_text(good)
    edit_json(index, lambda value: value["stages"]["decoder"].pop("steps"))
    assert "decoder: steps is missing" in failure(load_checkpoint, model, CPU, torch.float32)
    index.write_text(good)
    scheduler = model / "prior_scheduler" / "scheduler_config.json"
    scheduler.rename(model / "elsewhere.json")
    assert f"{scheduler} is missing" in failure(load_checkpoint, model, CPU, torch.float32)
    (model / "elsewhere.json").rename(scheduler)
    shutil.rmtree(model / "upsampler")
    assert f"{model / 'upsampler' / 'config.json'} is missing" in failure(load_checkpoint, model, CPU, torch.float32)


def test_a_component_of_the_wrong_kind(model: Path) -> None:
    shutil.rmtree(model / "prior")
    shutil.copytree(model / "text_proj", model / "prior")
    message = failure(load_checkpoint, model, CPU, torch.float32)
    assert "prior holds a TextProjection, not a PriorTransformer; download the checkpoint again" in message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "jpeg"}, "unknown codec 'jpeg': choose one of identity, pixel_unshuffle"),
        ({"type": "pixel_unshuffle", "patch": 4}, "cannot take"),
        ({"type": "identity"}, "the codec of the decoder does not fit its 48 channels"),
    ],
)
def test_a_wrong_codec(model: Path, config: dict, message: str) -> None:
    edit_json(model / "model_index.json", lambda index: index["stages"]["decoder"].update(codec=config))
    assert message in failure(load_checkpoint, model, CPU, torch.float32)


@pytest.mark.parametrize("text", ["{", "[1]", "null", "\udc00"])
def test_a_file_without_a_json_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = failure(read_json, path)
    assert message.startswith(str(path))
    assert "JSON" in message


def test_missing_files(folder: Path) -> None:
    (folder / "config.json").rename(folder / "config.txt")
    assert failure(load_network, folder) == f"{folder / 'config.json'} is missing; download the checkpoint again"
    (folder / "config.txt").rename(folder / "config.json")
    (folder / "model.safetensors").unlink()
    assert failure(load_network, folder) == f"no .safetensors file in {folder}; download the checkpoint again"


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file(folder: Path, fraction: float) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    message = failure(load_network, folder)
    assert message.startswith(f"{path} is missing or damaged")
    assert message.endswith("download the checkpoint again")


def test_a_missing_shard_is_named(shards: Path) -> None:
    gone = sorted(shards.glob("*.safetensors"))[1]
    gone.unlink()
    assert failure(load_network, shards).startswith(f"{gone} is missing or damaged")


class Bomb:
    """A pickle that leaves a trace if it is ever read."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def test_pickles_are_never_read_whatever_their_name(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin", "model.pt", "model.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(trace)))
    assert failure(load_network, folder) == (
        f"{folder} has its weights in diffusion_pytorch_model.bin, and reading a pickle can run any code: "
        f"convert it with `unclip models convert {folder}`"
    )
    for garbage in (pickle.dumps(Bomb(trace)), b"GIF89a" * 100):
        (folder / "model.safetensors").write_bytes(garbage)
        assert "is missing or damaged" in failure(load_network, folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    assert "is missing or damaged" in failure(load_network, folder)
    assert not trace.exists()


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    good = load_file(path)
    name = "embedding_proj.bias"
    for tensors, message in (
        ({key: t for key, t in good.items() if key != name}, f"lacks tensors: {name};"),
        ({**good, "extra": torch.ones(1)}, "has unexpected tensors: extra;"),
        ({**good, name: good[name][:5].clone()}, f"has misshapen tensors: {name};"),
        ({}, "lacks tensors: clip_extra_context_tokens_proj.bias, "),
        ({}, " and 8 more; download the checkpoint again"),
    ):
        save_file(tensors, path)
        text = failure(load_network, folder)
        assert message in text
        assert text.startswith(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "StableDiffusion"}, "unknown network class 'StableDiffusion'; known: Clip, TextProjection, "),
        ({"_class_name": None}, "unknown network class None"),
        ({"_class_name": ["Clip"]}, "unknown network class ['Clip']"),
        ({"depth": 3}, "the config does not fit TextProjection: "),
        ({"time_embed_dim": "wide"}, "the config does not fit TextProjection: "),
        ({"_class_name": "UNet2DModel"}, "the config does not fit UNet2DModel: "),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, change: dict, message: str) -> None:
    edit_json(folder / "config.json", lambda config: config.update(change))
    assert message in failure(load_network, folder)
    assert str(folder / "config.json") in failure(load_network, folder)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Clip", {"text_heads": 3}),
        ("Clip", {"embed_dim": -1}),
        ("UNet2DModel", {"norm_num_groups": 7}),
        ("UNet2DConditionModel", {"down_block_types": ["NoSuchBlock", "NoSuchBlock"]}),
        ("PriorTransformer", {"added_emb_type": "x"}),
    ],
)
def test_invalid_network_sizes(kind: str, change: dict) -> None:
    assert failure(new_network, kind, {**NETWORKS[kind], **change}).startswith(f"the config does not fit {kind}: ")


def test_a_shard_index_cannot_lead_out_of_its_folder(folder: Path, network: nn.Module, tmp_path: Path) -> None:
    outside = tmp_path / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    for file in ("../outside.safetensors", str(outside), "..", ".", "", "sub/../../outside.safetensors"):
        weight_map = dict.fromkeys(network.state_dict(), file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        message = failure(load_network, folder)
        assert message.startswith(f"{folder / 'model.safetensors.index.json'} names the file {file[:20]!r}"[:-1])
        assert "which is not in its folder" in message


@pytest.mark.parametrize("text", ["{}", '{"weight_map": 3}', "{"])
def test_a_damaged_shard_index(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    assert failure(load_network, folder).startswith(str(folder / "model.safetensors.index.json"))
