"""Damaged checkpoints of both layouts: each loads, or is one line that names the file."""

import json
import random
import resource
import shutil
import struct
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import add_inpainting_decoder
from unclip import CheckpointError, Unclip
from unclip.checkpoints.identity import identify_model
from unclip.checkpoints.index import find_missing_files, find_weight_files
from unclip.checkpoints.verify import check_checkpoint
from unclip.cli.main import main
from unclip.errors import InputError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"
STEPS = {"seed": 3, "prior_steps": 1, "steps": 1, "upsampler_steps": 1}
VALUES = [
    None,
    True,
    0,
    -1,
    5,
    20_000,
    10**9,
    10**30,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "x" * 100_000,
    "../x",
    "/etc/passwd",
    "a\nb\0",
    [],
    {},
    ["unclip"],
    ["unclip", "Clip"],
    [10**9] * 2,
    {"prior": 5},
    json.loads("[" * 300 + "]" * 300),
]


@pytest.fixture(params=["native", "karlo"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a small checkpoint of each layout."""
    native = request.param == "native"
    folder = request.getfixturevalue("tiny_model") if native else request.getfixturevalue("karlo")("one")[0]
    copy = Path(shutil.copytree(folder, tmp_path / "model"))
    return add_inpainting_decoder(copy, "decoder.conv_in") if native else copy


def load(folder: Path) -> Unclip:
    return Unclip.from_pretrained(folder, "cpu", "float32", "low")  # reads little


def failure(call: Callable, *arguments: Any) -> str:
    """The CheckpointError of a call: one line of bounded length."""
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    return check_message(str(caught.value))


def check_message(message: str) -> str:
    assert message and message.isprintable() and len(message) < 700, message[:1000]
    return message


def try_everything(folder: Path) -> Unclip | None:
    """Whatever reads a checkpoint; the pipeline, or None if it is refused in one line."""
    pipe = None
    for read in (identify_model, find_missing_files, lambda folder: list(check_checkpoint(folder)), load):
        try:
            found = read(folder)
            pipe = found if isinstance(found, Unclip) else None
        except InputError as error:
            check_message(str(error))
    return pipe


# ---- mutations


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from nodes(value[key])


def damage_json(path: Path, rng: random.Random) -> str:
    """Replace, remove or repeat one value of a JSON file; returns a description."""
    value = json.loads(path.read_text())
    container, key = rng.choice(list(nodes(value))[:200])  # not only words of the vocabulary
    kind = rng.choice(["replace"] * 6 + ["remove", "nest", "bytes", "cut", "foreign"])
    if kind == "replace":
        new = rng.choice(VALUES)
        container[key] = new
        path.write_text(json.dumps(value))
        return f"{path.name}: {key!r} = {new!r:.40}"
    if kind == "remove":
        del container[key]
    elif kind == "nest":
        container[key] = [container[key]]
    if kind in ("remove", "nest"):
        path.write_text(json.dumps(value))
    else:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes({"bytes": data, "cut": data[: rng.randrange(len(data))], "foreign": LFS}[kind])
    return f"{path.name}: {kind} {key!r}"


def damage_weights(path: Path, rng: random.Random) -> str:
    """Change the header or the length of a safetensors file; returns a description."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    kind = rng.choice(
        ["type", "shape", "offsets", "rename", "drop", "long", "bytes", "cut", "length", "foreign", "add"]
    )
    if kind == "type":
        entry["dtype"] = rng.choice(["I8", "U8", "I64", "BOOL", "F8_E4M3", "C64", "F16", "F64", "Q4", 5])
    elif kind == "shape":
        entry["shape"] = rng.choice([[], [10**12], [-1], [0], entry["shape"][::-1], "x", [2**63]])
    elif kind == "offsets":
        entry["data_offsets"] = rng.choice([[0, 0], [0, 10**15], [5, 1], [-1, 5], [0]])
    elif kind in ("rename", "long"):
        header["other" if kind == "rename" else "x" * 200_000] = header.pop(name)
    elif kind == "drop":
        del header[name]
    elif kind == "add":
        header["more"] = entry
    text = json.dumps(header).encode()
    new = struct.pack("<Q", len(text)) + text + data[8 + length :]
    if kind == "bytes":
        position = rng.randrange(8 + length)
        new = data[:position] + bytes([rng.randrange(256)]) + data[position + 1 :]
    elif kind == "cut":
        new = data[: rng.randrange(len(data))]
    elif kind == "length":
        new = struct.pack("<Q", rng.choice([0, 1, length + 1, 2**40, 2**64 - 1])) + data[8:]
    elif kind == "foreign":
        new = rng.choice([LFS, b"", b"<!DOCTYPE html><html>", b"\x80\x04."])
    path.write_bytes(new)
    return f"{path.parent.name}/{path.name}: {kind} {name}"


def damage(folder: Path, rng: random.Random) -> tuple[str, dict[Path, bytes]]:
    """Damage one file of a checkpoint; returns a description, and what restores the file."""
    files = sorted(folder.rglob("*.json")) + sorted(folder.rglob("*.safetensors"))
    files = [file for file in files if file.name not in ("tokenizer.json", "vocab.json")]  # large and checked by hash
    path = rng.choice(files + [folder / "model_index.json"] * 4)
    before = {path: path.read_bytes()}
    return (damage_json if path.suffix == ".json" else damage_weights)(path, rng), before


def run_mutations(folder: Path, seed: int, count: int) -> int:
    """Damage a checkpoint `count` times, each time alone; returns the number of copies that still load."""
    rng, loaded = random.Random(seed), 0
    [expected] = load(folder).generate("a cat", **STEPS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        what, restore = damage(folder, rng)
        try:
            pipe = try_everything(folder)
            if pipe is not None:
                loaded += 1
                try:
                    [result] = pipe.generate("a cat", **STEPS)
                    assert result.image.size == expected.image.size or "model_index" in what or "sample_size" in what
                except InputError as error:
                    check_message(str(error))
        except Exception as error:
            raise AssertionError(what) from error
        growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux
        assert growth < 200 << 10, (what, growth)
        for path, data in restore.items():
            path.write_bytes(data)
    return loaded


def test_a_damaged_checkpoint_loads_or_is_refused_in_one_line(model: Path) -> None:
    loaded = run_mutations(model, seed=20, count=12)
    assert 0 < loaded < 12


# ---- single cases


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def weights(folder: Path) -> list[Path]:
    """One weight file of each component."""
    return [files[0] for part in sorted(folder.iterdir()) if part.is_dir() and (files := find_weight_files(part))]


def test_weights_that_are_not_floating_point_are_refused(model: Path) -> None:
    kinds = {torch.int8: "I8", torch.uint8: "U8", torch.float8_e4m3fn: "F8_E4M3", torch.complex64: "C64"}
    for path, (dtype, kind) in zip(weights(model), cycle(kinds.items()), strict=False):
        good, tensors = path.read_bytes(), load_file(path)
        name = sorted(tensors)[0]
        save_file({**tensors, name: tensors[name].to(dtype)}, path)
        expected = f"{path} holds '{name}' as {kind}, and only BF16, F16, F32, F64 can be read; "
        assert failure(load, model).startswith(expected)
        path.write_bytes(good)


def test_a_config_that_asks_for_gigabytes_is_refused_before_they_are_allocated(model: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for component, change in (
        ("prior", {"num_embeddings": 20_000}),
        ("prior", {"num_layers": 10**6}),
        ("decoder", {"block_out_channels": [10**6, 10**7]}),
        ("text_proj", {"clip_extra_context_tokens": 10**7}),
        ("clip", {"context_length": 30_000}),
        ("clip", {"text_layers": 10**6}),
        ("text_encoder", {"max_position_embeddings": 30_000}),
    ):
        path = model / component / "config.json"
        if path.is_file():
            good = path.read_bytes()
            edit_json(path, lambda config, change=change: config.update(change))
            assert "the config asks for a larger network than the weight files hold" in failure(load, model)
            path.write_bytes(good)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10  # KiB on Linux


def test_a_checkpoint_of_variants_alone_gives_the_same_image(model: Path) -> None:
    [expected] = load(model).generate("a cat", **STEPS)
    for path in weights(model):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    sharded = next(path for path in weights(model) if path.parent.name == "decoder")
    tensors, index = load_file(sharded), {}
    for number, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        file = f"{sharded.name.split('.')[0]}-0000{number}-of-00002.fp16.safetensors"
        save_file({name: tensors[name] for name in part}, sharded.with_name(file))
        index |= dict.fromkeys(part, file)
    sharded.unlink()
    shard_index = sharded.with_name(f"{sharded.name.split('.')[0]}.safetensors.index.fp16.json")
    shard_index.write_text(json.dumps({"weight_map": index}))
    sharded.with_name("model.non_ema.safetensors").write_bytes(b"not read")
    assert find_missing_files(model) == []
    [result] = load(model).generate("a cat", **STEPS)
    assert result.image.tobytes() == expected.image.tobytes()
    shard_index.unlink()
    assert find_missing_files(model) == [f"decoder/{shard_index.name}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder"),
        (b"<!doctype html>\n<html>", "is a web page, not the file itself"),
    ],
)
def test_files_that_stand_in_for_others_are_named(model: Path, content: bytes, message: str, capsys) -> None:
    for path in (weights(model)[0], model / "decoder" / "config.json", model / "model_index.json"):
        good = path.read_bytes()
        path.write_bytes(content)
        assert failure(load, model).startswith(f"{path} {message}")
        assert main(["models", "show", str(model)]) == 2 or path.name == "config.json"
        assert message in capsys.readouterr().err or path.name == "config.json"
        path.write_bytes(good)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline", 5, ["x"], "x" * 100_000])
def test_checkpoints_of_other_pipelines_are_named(model: Path, name: object, capsys) -> None:
    edit_json(model / "model_index.json", lambda index: index.update(_class_name=name))
    for read in (load, identify_model, lambda folder: list(check_checkpoint(folder))):
        message = failure(read, model)
        assert repr(name)[:70] in message and message.startswith(str(model / "model_index.json"))
        assert "is not an unCLIP model" in message
    assert main(["models", "check", str(model)]) == 2
    assert "is not an unCLIP model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("decoder", {"freq_shift": {}}, "freq_shift is {}, and should be like 0"),
        ("decoder", {"flip_sin_to_cos": "no"}, "flip_sin_to_cos is 'no', and should be like True"),
        ("prior", {"num_layers": True}, "num_layers is True, and should be like"),
        (
            "decoder",
            {"resnet_out_scale_factor": 0},
            "resnet_out_scale_factor is 0, and should be a number from 0.001",
        ),
        ("decoder", {"mid_block_scale_factor": 1e-30}, "mid_block_scale_factor is 1e-30, and should be a number from"),
        ("decoder", {"mid_block_scale_factor": [1]}, "mid_block_scale_factor is [1], and should be a number from"),
        ("decoder", {"norm_eps": -1.0}, "norm_eps is -1.0, and should be a number from 1e-12 up"),
        ("decoder", {"freq_shift": 10**6}, "freq_shift is 1000000, and should be a number below "),
        ("decoder_scheduler", {"beta_schedule": "x" * 100_000}, "beta_schedule='xxx"),
    ],
)
def test_config_values_of_another_type(model: Path, file: str, change: dict, message: str) -> None:
    path = next((model / file).glob("*config.json"))
    edit_json(path, lambda config: config.update(change))
    for read in (load, lambda folder: str([found.text for found in check_checkpoint(folder) if not found.valid])):
        found = read(model) if read is not load else failure(load, model)
        assert f"{path}: " in found and message in found and len(found) < 700


@pytest.mark.parametrize("stages", [{"prior": 5}, {"decoder": {"size": "x"}}, {"decoder": {"size": [10**9, 1]}}, [], 5])
def test_stages_of_a_wrong_type(tiny_model: Path, tmp_path: Path, stages: object) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    edit_json(folder / "model_index.json", lambda index: index.update(stages=stages, codec=["unclip"]))
    assert try_everything(folder) is None
    assert main(["models", "show", str(folder)]) in (0, 2)


@pytest.mark.parametrize("name", [5, None, "", "a\nb", "x" * 1000, ["a"]])
def test_a_name_that_is_none(tiny_model: Path, tmp_path: Path, name: object) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    edit_json(folder / "model_index.json", lambda index: index.update(name=name))
    for read in (load, identify_model):
        assert "model_index.json: name is " in failure(read, folder)


def test_no_other_image_encoder_for_a_model_whose_clip_was_trained_as_a_whole(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError, match="tiny takes no other image encoder, because its CLIP was trained"):
        Unclip.from_pretrained(tiny_model, "cpu", "float32", image_encoder=tiny_model)
