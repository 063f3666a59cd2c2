"""Conversion of pickles to safetensors, and errors of damaged checkpoints in the published layout."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip import CheckpointError, Unclip
from unclip.checkpoints.verify import check_checkpoint
from unclip.cli.main import main

STEPS = {"seed": 3, "prior_steps": 2, "steps": 2, "upsampler_steps": 2}


def failure(folder: Path) -> str:
    """The error of loading the checkpoint: one line."""
    with pytest.raises(CheckpointError) as caught:
        Unclip.from_pretrained(folder, "cpu", "float32", "low")  # reads little
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def model(karlo, tmp_path: Path) -> Path:
    return Path(shutil.copytree(karlo("one")[0], tmp_path / "karlo"))


@pytest.fixture
def pickled(model: Path) -> Path:
    """The model with all weights pickled: the decoder in two files, the text encoder in the format before torch 1.6."""
    for path in sorted(model.rglob("*.safetensors")):
        tensors, part = load_file(path), path.parent
        path.unlink()
        if part.name == "decoder":
            names = sorted(tensors)
            halves = {"a.bin": names[: len(names) // 2], "b.bin": names[len(names) // 2 :]}
            for file, own in halves.items():
                torch.save({name: tensors[name] for name in own}, part / file)
            weight_map = {name: file for file, own in halves.items() for name in own}
            (part / "diffusion_pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        elif part.name == "text_encoder":
            torch.save(tensors, part / "pytorch_model.bin", _use_new_zipfile_serialization=False)
        elif part.name == "prior":
            torch.save({"state_dict": tensors, "step": 3}, part / "last.ckpt")
        else:
            torch.save(tensors, part / "diffusion_pytorch_model.bin")
    return model


def test_pickles_are_refused_and_converted(pickled: Path, karlo, tmp_path: Path, capsys) -> None:
    message = failure(pickled)
    assert message.endswith(f"convert it with `unclip models convert {pickled}`")
    assert main(["models", "convert", str(pickled), "-o", str(tmp_path / "new")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith(f"{pickled / 'decoder' / 'a.bin'} -> {tmp_path / 'new' / 'decoder' / 'a.safetensors'}: ")
    assert not [path for path in (tmp_path / "new").rglob("*") if path.suffix in (".bin", ".ckpt")]
    assert not list(pickled.rglob("*.safetensors"))
    assert main(["models", "convert", str(pickled), "-o", str(tmp_path / "new")]) == 2
    assert "is not empty; give a new folder" in capsys.readouterr().err

    assert main(["models", "convert", str(pickled)]) == 0  # in place
    [expected] = Unclip.from_pretrained(karlo("one")[0], "cpu", "float32").generate("a cat", **STEPS)
    for folder in (tmp_path / "new", pickled):
        [result] = Unclip.from_pretrained(folder, "cpu", "float32").generate("a cat", **STEPS)
        assert result.image.tobytes() == expected.image.tobytes()
    capsys.readouterr()
    assert main(["models", "convert", str(pickled)]) == 2
    assert "holds no pickled weights" in capsys.readouterr().err


class Bomb:
    """A pickle that creates a file if a reader runs its code."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def test_a_pickle_that_holds_more_than_tensors_is_not_converted(model: Path, tmp_path: Path, capsys) -> None:
    part, trace = model / "prior", tmp_path / "trace"
    (part / "diffusion_pytorch_model.safetensors").unlink()
    path = part / "diffusion_pytorch_model.bin"
    torch.save({"a": Bomb(trace)}, tmp_path / "bomb")
    torch.save({"a": torch.ones(1), "b": 3}, tmp_path / "number")
    torch.save([torch.ones(1)], tmp_path / "list")
    contents = [pickle.dumps(Bomb(trace)), b"", b"garbage" * 99]
    contents += [(tmp_path / name).read_bytes() for name in ("bomb", "number", "list")]
    for content in contents:
        path.write_bytes(content)
        assert main(["models", "convert", str(model)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"unclip: error: {path} was not converted: ") and err.count("\n") == 1
        assert not trace.exists()
        assert sorted(p.name for p in part.iterdir()) == ["config.json", path.name]
    (part / "other.pt").write_bytes(b"")
    assert main(["models", "convert", str(model)]) == 2
    assert "several pickles (diffusion_pytorch_model.bin, other.pt)" in capsys.readouterr().err


# ---- damage


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


DECODER = "decoder/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (DECODER, lambda t: t.pop("conv_in.weight"), "decoder lacks tensors: conv_in.weight;"),
        (TEXT, lambda t: t.pop("text_projection.weight"), "text_encoder lacks tensors: text_projection.weight;"),
        (TEXT, lambda t: t.update(more=torch.ones(1)), "text_encoder has unexpected tensors: more;"),
        (
            TEXT,
            lambda t: t.update({"text_projection.weight": torch.ones(3, 16)}),
            "text_encoder has misshapen tensors: text_projection.weight;",
        ),
    ],
)
def test_missing_unexpected_and_misshapen_tensors(model: Path, file: str, change: Callable, message: str) -> None:
    tensors = load_file(model / file)
    change(tensors)
    save_file(tensors, model / file)
    assert message in failure(model)
    wrong = [component for component, _, valid in check_checkpoint(model) if not valid]
    assert wrong == ["decoder" if "decoder" in file else "together"]


def test_position_ids_of_old_transformers_are_ignored(model: Path) -> None:
    tensors = load_file(model / TEXT)
    tensors["text_model.embeddings.position_ids"] = torch.arange(13)[None]
    save_file(tensors, model / TEXT)
    assert all(valid for _, _, valid in check_checkpoint(model))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", lambda v: v.update({"../prior": v["prior"]}), "leads out of its folder, by '../prior'"),
        ("model_index.json", lambda v: v.update(prior=["../../x", "PriorTransformer"]), "leads out of its folder"),
        ("model_index.json", lambda v: v.update({"/etc": ["a", "b"]}), "leads out of its folder, by '/etc'"),
        ("model_index.json", lambda v: v.update(prior=["diffusers", "Other"]), "the prior is a Other, not a Prior"),
        ("model_index.json", lambda v: v.pop("decoder"), "lists no decoder"),
        ("model_index.json", lambda v: v.pop("prior"), "lists neither a prior nor an image_encoder"),
        ("model_index.json", lambda v: v.pop("super_res_last"), "lists no super_res_last"),
        ("decoder/config.json", lambda v: v.update(_class_name="Evil"), "unknown network class 'Evil'"),
        ("super_res_last/config.json", lambda v: v.update(_class_name="PriorTransformer"), "does not fit Prior"),
        ("decoder/config.json", lambda v: v.update(sample_size="x"), "sample_size is 'x'"),
        ("super_res_last/config.json", lambda v: v.update(sample_size=64), "sample_size is 64, and should be 16"),
        ("text_encoder/config.json", lambda v: v.update(hidden_act="relu"), "hidden_act is 'relu', and only"),
        ("text_encoder/config.json", lambda v: v.update(hidden_size=0), "hidden_size is 0"),
        ("text_encoder/config.json", lambda v: v.update(num_attention_heads=5), "configs of CLIP do not fit together"),
        ("tokenizer/tokenizer_config.json", lambda v: v.update(pad_token="<pad>"), "only checkpoints that pad"),
        ("tokenizer/tokenizer.json", lambda v: v["model"]["vocab"].update(cat=1), "another vocabulary than CLIP's"),
        (
            "decoder_scheduler/scheduler_config.json",
            lambda v: v.update(beta_schedule="sigmoid"),
            "beta_schedule='sigmoid'",
        ),
        (
            "decoder_scheduler/scheduler_config.json",
            lambda v: v.update(variance_type="fixed_small_log"),
            "out_channels is 6, and should be 3",
        ),
    ],
)
def test_a_damaged_config_is_reported_in_one_line(model: Path, file: str, change: Callable, message: str) -> None:
    edit_json(model / file, change)
    assert message in failure(model)


def test_weight_files_with_other_content(model: Path, capsys) -> None:
    good = (model / DECODER).read_bytes()
    for bad in (good[: len(good) // 2], pickle.dumps({"a": 1}), b""):
        (model / DECODER).write_bytes(bad)
        assert f"{model / DECODER} is missing or damaged" in failure(model)
        assert main(["models", "check", str(model)]) == 2
        out, err = capsys.readouterr()
        assert out.count("WRONG") == 1 and f"WRONG  decoder                 {model / DECODER} is missing" in out
        assert err == f"unclip: error: components of {model} that cannot be used: 1; download the checkpoint again\n"
    (model / DECODER).write_bytes(good)
    assert main(["models", "check", str(model)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ok     together                the components fit"


def test_duplicate_tensors_in_two_files_are_refused(model: Path) -> None:
    shutil.copy(model / DECODER, (model / DECODER).with_name("training_ema.safetensors"))
    assert "training_ema.safetensors repeats " in failure(model) and "keep one of the two" in failure(model)


def test_a_half_precision_variant_is_not_read(model: Path) -> None:
    (model / "decoder" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not read")
    assert all(valid for _, _, valid in check_checkpoint(model))


def test_models_show_describes_the_published_layout(model: Path, capsys) -> None:
    (model / "README.md").write_text("---\nlicense: creativeml-openrail-m\n---\n# Karlo\n")
    assert main(["models", "show", str(model)]) == 0
    out = capsys.readouterr().out
    for line in (
        "licence     creativeml-openrail-m",
        "sizes       8x8, 16x16",
        "decoder                 predicts epsilon, learned_range",
        "prior                   predicts sample, fixed_small_log",
    ):
        assert line in out
