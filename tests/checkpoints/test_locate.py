"""Folders of checkpoints by name and path."""

import json
from pathlib import Path

import pytest

from unclip.checkpoints import locate
from unclip.checkpoints.index import find_missing_files
from unclip.checkpoints.locate import find_checkpoint
from unclip.errors import CheckpointError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "copy"
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def failure(name: str | Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundled_model_by_its_name_and_a_folder_by_its_path(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "bundled", lambda *parts: model.parent.joinpath(*parts[1:]))
    assert locate.list_bundled_models() == ["copy"]
    assert find_checkpoint("copy") == find_checkpoint(str(model)) == find_checkpoint(model) == model
    # An output folder with the model's name does not hide the bundled model.
    (model / "copy").mkdir()
    monkeypatch.chdir(model)
    assert find_checkpoint("copy") == model


def test_an_unknown_model_lists_the_known_ones(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "list_bundled_models", lambda: ["landscapes", "stickers"])
    for name in ("portraits", "x" * 5000, "a/b", "nul\0"):
        message = failure(name)
        assert f"{name!r}"[:77] in message and len(message) < 300
        assert "landscapes, stickers" in message
    assert "landscapes, stickers" in failure("")
    assert "did you mean 'stickers'?" in failure("sticker")


def test_a_folder_without_a_model_index(tmp_path: Path) -> None:
    assert failure(tmp_path) == f"{tmp_path} has no model_index.json: give the folder that contains it"


def test_a_shard_index_and_a_vocabulary_are_found_missing(model: Path) -> None:
    index = {"prior": ["diffusers", "PriorTransformer"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (model / "model_index.json").write_text(json.dumps(index))
    for name in ("prior/config.json", "tokenizer/tokenizer_config.json"):
        (model / name).parent.mkdir()
        (model / name).write_text("{}")
    shard = model / "prior" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    shard.touch()
    assert find_missing_files(model) == ["prior/diffusion_pytorch_model.safetensors.index.json", "tokenizer/vocab.json"]
    other = shard.with_name("diffusion_pytorch_model-00002-of-00002.safetensors")
    weights = {"weight_map": {"a": shard.name, "b": other.name}}
    (model / "prior" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(weights))
    (model / "tokenizer" / "tokenizer.json").touch()
    assert find_missing_files(model) == [f"prior/{other.name}"]
    other.touch()
    assert find_missing_files(model) == []
