"""`unclip models`."""

import base64
import io
import json
import re

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image
from safetensors.numpy import save_file

from unclip.cli.main import main
from unclip.requests.vocabulary import words_of
from unclip.system.resources import bundled


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint folder of two components, the first in two shards."""
    folder = tmp_path / "tiny"
    for component in ("clip", "decoder"):
        (folder / component).mkdir(parents=True)
    index = {
        "_class_name": "Unclip",
        "clip": ["unclip", "Clip"],
        "decoder": ["diffusers", "UNet2DConditionModel"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "decoder" / "config.json").write_text('{"sample_size": 64}')
    save_file({"a": np.zeros((1000, 500), np.float16)}, folder / "clip" / "model-1.safetensors")
    save_file({"b": np.zeros((1000, 700), np.float16)}, folder / "clip" / "model-2.safetensors")
    save_file(
        {"c": np.zeros((1000, 300), np.float32), "d": np.zeros((), np.float32)},
        folder / "decoder" / "model.safetensors",
    )
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A tiny model\n" + "text\n" * 50)
    return folder


def test_show_a_checkpoint_folder(checkpoint, capsys):
    assert main(["models", "show", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# A tiny model\n")
    assert "sizes       64x64\n" in out
    assert "clip                    1.2 M parameters\n" in out
    assert "decoder                 0.3 M parameters\n" in out
    assert '"_class_name": "Unclip"' in out


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("model_index.json", b"{"),
        ("model_index.json", b"[]"),
        ("clip/model-2.safetensors", b""),
        ("clip/model-2.safetensors", b"\xff" * 64),
        ("clip/model-2.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
    ],
    ids=["broken index", "index of another type", "empty", "huge header", "header of another type"],
)
def test_a_damaged_checkpoint(checkpoint, capsys, file, data):
    (checkpoint / file).write_bytes(data)
    assert main(["models", "show", str(checkpoint)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("unclip: error: ") and err.count("\n") == 1
    assert file in err and "damaged" in err


def test_sizes_of_this_projects_layout(checkpoint, capsys):
    stages = {"prior": {"steps": 25}, "decoder": {"size": [64, 64]}, "upsampler": {"size": [256, 256]}}
    (checkpoint / "model_index.json").write_text(json.dumps({"clip": ["unclip", "Clip"], "stages": stages}))
    assert main(["models", "show", str(checkpoint)]) == 0
    assert "sizes       64x64, 256x256\n" in capsys.readouterr().out


def test_vocabulary(checkpoint, capsys):
    assert main(["models", "show", str(checkpoint), "--vocabulary"]) == 2
    assert "no list of words" in capsys.readouterr().err
    (checkpoint / "vocabulary.json").write_text('{"words": ["cat", "dog"]}')
    assert main(["models", "show", str(checkpoint), "--vocabulary"]) == 0
    assert capsys.readouterr().out == "words (2)\n  cat\n  dog\n"


def test_the_words_of_the_bundled_model_in_groups(capsys, tmp_path):
    assert main(["models", "show", "stickers", "--vocabulary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line.rpartition(" (")[0] for line in lines if line[0] != " "]
    assert titles[:4] == ["objects", "backgrounds", "sizes", "numbers"] and "positions" in titles
    assert any(line.split() == ["cat", "cats,", "kitten,", "kitty,", "kittens,", "kitties"] for line in lines)
    assert "  A to the left of B" in "\n".join(lines) and any(line.startswith("  pink") for line in lines)
    assert main(["models", "show", "stickers", "--vocabulary", "--json"]) == 0
    groups = {one["group"]: one["words"] for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert list(groups) == titles and ["cat", "cats", "kitten", "kitty", "kittens", "kitties"] in groups["objects"]
    known = {word for rows in groups.values() for row in rows for text in row for word in words_of(text)}
    listed = json.loads((bundled("weights") / "stickers" / "vocabulary.json").read_text())["words"]
    assert set(listed) - known <= {"background", "against", "with", "of", "at", "bottom", "top", "a", "an"}

    page = tmp_path / "words.html"
    assert main(["models", "show", "stickers", "--vocabulary", "--html", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text()
    images = re.findall(r'<img alt="([^"]+)" src="data:image/webp;base64,([^"]+)">', text)
    assert [name for name, _ in images] == [row[0] for row in groups["objects"]] and "http" not in text
    with Image.open(io.BytesIO(base64.b64decode(dict(images)["cat"]))) as thumbnail:
        assert max(thumbnail.size) == 48
    for option in (["--html", str(page)], ["--json"]):
        assert main(["models", "show", "stickers", *option]) == 2
        assert "give --vocabulary too" in capsys.readouterr().err


def test_models_of_other_software_in_the_cache_are_not_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name, kind in (("other", "StableDiffusionPipeline"), ("karlo", "UnCLIPPipeline")):
        folder = tmp_path / f"models--someone--{name}" / "snapshots" / ("0" * 40)
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text(json.dumps({"_class_name": kind, "prior": ["diffusers", "X"]}))
    (tmp_path / "models--someone--broken" / "snapshots" / ("1" * 40)).mkdir(parents=True)
    (tmp_path / "models--someone--broken" / "snapshots" / ("1" * 40) / "model_index.json").write_text("{")
    assert main(["models", "list"]) == 0
    out = capsys.readouterr().out
    assert "someone/other" not in out and "broken" not in out
    assert f"someone/karlo@{'0' * 40}  incomplete: prior/config.json is missing; `unclip models download" in out


def test_the_licence_of_the_bundled_model_is_shown(capsys):
    assert main(["models", "show", "stickers"]) == 0
    assert "licence     MIT AND CC-BY-4.0\n" in capsys.readouterr().out
