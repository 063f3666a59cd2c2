"""The token embedding that the decoder's text encoder shares with CLIP: stored once, read from CLIP, never another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import CLIP, add_inpainting_decoder, tiny_network, use_clip_embedding
from unclip.checkpoints.decoder_copy import fingerprint, is_current, keep_copy
from unclip.checkpoints.load import load_checkpoint
from unclip.checkpoints.networks import load_network, save_network
from unclip.checkpoints.verify import check_checkpoint
from unclip.errors import CheckpointError
from unclip.inference.model import UnclipModel
from unclip.models.text_encoder import TransformerTextEncoder
from unclip.pipeline import Unclip
from unclip.system.files import read_json

NAME = "transformer.token_embedding.weight"
FORMS = ("once", "twice")


@pytest.fixture(scope="module")
def forms(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model with the token embedding stored once, and twice as older versions did; for reading only."""
    folder = tmp_path_factory.mktemp("forms")
    once = use_clip_embedding(Path(shutil.copytree(tiny_model, folder / "once")))
    twice = Path(shutil.copytree(once, folder / "twice", ignore=shutil.ignore_patterns("decoder_text")))
    save_network(load_network(once / "decoder_text"), folder / "text_encoder")  # no CLIP is beside it
    shutil.move(folder / "text_encoder", twice / "decoder_text")
    return {"once": once, "twice": twice}


@pytest.fixture
def model(forms: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the model with the embedding stored once, to damage."""
    return Path(shutil.copytree(forms["once"], tmp_path / "model"))


def load(folder: Path, memory: str = "high", dtype: torch.dtype = torch.float32) -> UnclipModel:
    return load_checkpoint(folder, torch.device("cpu"), dtype, memory)


def embeddings(model: UnclipModel) -> tuple[torch.Tensor, torch.Tensor]:
    """The token embedding of the decoder's text encoder, and CLIP's."""
    encoder: Any = model.decoder.network.text_encoder
    clip: Any = model.clip
    return encoder.transformer.token_embedding.weight, clip.text.token_embedding.weight


def failure(folder: Path) -> str:
    """The message of the CheckpointError with which a model does not load; `models check` reports the same."""
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text in [finding.text for finding in check_checkpoint(folder) if not finding.valid]
    return text


def edit(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


# ---- save and load


def test_it_is_stored_once_and_the_config_says_so(forms: dict[str, Path]) -> None:
    stored = {form: load_file(folder / "decoder_text" / "model.safetensors") for form, folder in forms.items()}
    assert stored["twice"].keys() - stored["once"].keys() == {NAME} and len(stored["once"]) > 10
    configs = {form: read_json(folder / "decoder_text" / "config.json") for form, folder in forms.items()}
    assert configs["once"]["_token_embedding"] == "clip"
    assert configs["once"].items() - configs["twice"].items() and configs["twice"].items() <= configs["once"].items()


def test_both_forms_load_as_the_same_network(forms: dict[str, Path]) -> None:
    once, twice = (load_network(forms[form] / "decoder_text") for form in FORMS)
    ours, theirs = once.state_dict(), twice.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert isinstance(once, TransformerTextEncoder) and once.config.width == 16


@pytest.mark.parametrize("memory", ["high", "low"])
def test_both_forms_generate_the_same(forms: dict[str, Path], memory: str) -> None:
    pipes = (Unclip.from_pretrained(forms[form], "cpu", "float32", memory) for form in FORMS)
    first, second = (pipe.generate("a red cat", seed=3)[0].image.tobytes() for pipe in pipes)
    assert first == second


@pytest.mark.parametrize("form", FORMS)
def test_saving_a_loaded_encoder_again_stores_it_once(forms: dict[str, Path], form: str, tmp_path: Path) -> None:
    """So a folder of an older version is converted."""
    folder = Path(shutil.copytree(forms[form], tmp_path / "model")) / "decoder_text"
    save_network(load_network(folder), folder)
    for file in ("config.json", "model.safetensors"):
        assert (folder / file).read_bytes() == (forms["once"] / "decoder_text" / file).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_another_embedding_is_stored(model: Path, dtype: torch.dtype) -> None:
    encoder: Any = load_network(model / "decoder_text")
    save_network(encoder, model / "decoder_text", dtype)
    assert NAME not in load_file(model / "decoder_text" / "model.safetensors")
    weight = encoder.transformer.token_embedding.weight
    weight[-1, -1] += 1e-2
    save_network(encoder, model / "decoder_text", dtype)
    assert "_token_embedding" not in read_json(model / "decoder_text" / "config.json")
    assert torch.equal(embeddings(load(model))[0], weight.to(dtype).float())


def test_without_a_clip_beside_it_the_embedding_is_stored(forms: dict[str, Path], tmp_path: Path) -> None:
    save_network(load_network(forms["once"] / "decoder_text"), tmp_path / "decoder_text")
    assert NAME in load_file(tmp_path / "decoder_text" / "model.safetensors")


@pytest.mark.parametrize("form", FORMS)
def test_the_memory_is_shared_where_precision_and_place_are_equal(forms: dict[str, Path], form: str) -> None:
    own, clips = embeddings(load(forms[form]))
    assert own is clips and not own.requires_grad
    own, clips = embeddings(load(forms[form], dtype=torch.bfloat16))
    assert own.dtype == torch.bfloat16 and torch.equal(own, clips.bfloat16())
    own, _ = embeddings(load(forms[form], "low"))
    assert torch.equal(own, clips)


def test_an_embedding_of_its_own_is_not_shared(tiny_model: Path) -> None:
    own, clips = embeddings(load(tiny_model))
    assert not torch.equal(own, clips)


def test_a_lora_changes_the_text_encoder_and_not_clip(forms: dict[str, Path], tmp_path: Path) -> None:
    module = "lora_unet_transformer_token_embedding"
    own, clips = embeddings(load(forms["once"]))
    tensors = {
        f"{module}.lora_down.weight": torch.ones(1, own.shape[1]),
        f"{module}.lora_up.weight": own[:, :1].clone(),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    pipe = Unclip.from_pretrained(forms["once"], "cpu", "float32", lora=tmp_path / "lora.safetensors")
    changed, theirs = embeddings(pipe.model)
    assert torch.equal(theirs, clips)
    torch.testing.assert_close(changed, clips + clips[:, :1])


# ---- damage


def test_another_clip_is_refused(model: Path) -> None:
    save_network(tiny_network("Clip", CLIP, 8), model / "clip")
    text = failure(model)
    assert text.startswith(f"{model / 'decoder_text'} was made with another CLIP than {model / 'clip'}")


def test_one_changed_value_of_one_token_is_noticed(model: Path) -> None:
    path = model / "clip" / "model.safetensors"
    tensors = load_file(path)
    tensors["text.token_embedding.weight"][40000, 3] += 0.01
    save_file(tensors, path)
    assert "was made with another CLIP" in failure(model)


def test_an_equal_clip_in_float32_is_not_another(model: Path) -> None:
    save_network(load_network(model / "clip"), model / "clip", torch.float32)
    own, clips = embeddings(load(model))
    assert own is clips


def test_without_the_entry_a_missing_tensor_is_an_error(model: Path) -> None:
    edit(model / "decoder_text" / "config.json", lambda config: config.pop("_token_embedding"))
    assert f"lacks tensors: {NAME};" in failure(model)


def test_damaged_entries(model: Path) -> None:
    path = model / "decoder_text" / "config.json"
    whole = path.read_text()
    changes: dict[str, Callable[[dict], object]] = {
        "_token_embedding is 'prior', and should be 'clip'": lambda config: config.update(_token_embedding="prior"),
        "_token_embedding is ['clip']": lambda config: config.update(_token_embedding=["clip"]),
        "_token_embedding_sha256 is missing": lambda config: config.pop("_token_embedding_sha256"),
        "was made with another CLIP": lambda config: config.update(_token_embedding_sha256=""),
    }
    for message, change in changes.items():
        edit(path, change)
        assert message in failure(model)
        path.write_text(whole)


def test_an_embedding_that_is_in_both_places_is_refused(forms: dict[str, Path], model: Path) -> None:
    shutil.copy(forms["twice"] / "decoder_text" / "model.safetensors", model / "decoder_text" / "model.safetensors")
    assert f"repeats '{NAME}'" in failure(model)


def test_a_clip_without_the_tensor(model: Path) -> None:
    path = model / "clip" / "model.safetensors"
    save_file({key: t for key, t in load_file(path).items() if key != "text.token_embedding.weight"}, path)
    with pytest.raises(CheckpointError, match="lacks text.token_embedding.weight, which .* refers to"):
        load_network(model / "decoder_text")
    assert "lacks tensors: text.token_embedding.weight" in failure(model)
    shutil.rmtree(model / "clip")
    with pytest.raises(CheckpointError, match="no .safetensors file in .*clip"):
        load_network(model / "decoder_text")


def test_models_check_counts_the_stored_parameters(forms: dict[str, Path]) -> None:
    found = {form: {f.component: f for f in check_checkpoint(folder)} for form, folder in forms.items()}
    assert all(finding.valid for findings in found.values() for finding in findings.values())
    assert found["once"]["decoder_text"].text == "0.0 M parameters in 1 file; its token embedding is CLIP's"
    assert found["twice"]["decoder_text"].text == "0.8 M parameters in 1 file"


# ---- the inpainting decoder


@pytest.mark.parametrize("changed", ["decoder.conv_in", "decoder_text.transformer", f"decoder_text.{NAME}"])
def test_a_copy_of_the_decoder_fits_both_forms(forms: dict[str, Path], tmp_path: Path, changed: str) -> None:
    made = {form: Path(shutil.copytree(folder, tmp_path / form)) for form, folder in forms.items()}
    assert fingerprint(made["once"]) == fingerprint(made["twice"])
    for folder in made.values():
        add_inpainting_decoder(folder, changed)
    copies = {form: folder / "inpainting_decoder" for form, folder in made.items()}
    for file in ("model.safetensors", "config.json"):
        assert (copies["once"] / file).read_bytes() == (copies["twice"] / file).read_bytes()
    stored = set(load_file(copies["once"] / "model.safetensors"))
    assert stored and all(name.startswith(changed) for name in stored)
    for form, other in (FORMS, FORMS[::-1]):  # and from one form to the other
        expected = copies[other].joinpath("model.safetensors").read_bytes()
        shutil.rmtree(copies[other])
        keep_copy(made[form], made[other])
        assert is_current(made[other]) and copies[other].joinpath("model.safetensors").read_bytes() == expected
    networks = [load(folder) for folder in made.values()]
    for model in networks:
        assert model.inpainting_decoder is not None
        encoder: Any = model.inpainting_decoder.network.text_encoder
        own = encoder.transformer.token_embedding.weight
        assert (own.data_ptr() == embeddings(model)[1].data_ptr()) == (changed == "decoder.conv_in")


def test_a_copy_with_another_clip_is_no_copy(model: Path) -> None:
    add_inpainting_decoder(model, "decoder.conv_in")
    save_network(tiny_network("Clip", CLIP, 8), model / "clip")
    assert not is_current(model)
