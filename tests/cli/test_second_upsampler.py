"""A size of the second upsampler on the command line: prompts, prompt files, edits, records, and a model without it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers import box_mask, noise_image, pixels
from unclip.checkpoints.identity import identify_model
from unclip.checkpoints.sampling_defaults import sampling_defaults
from unclip.cli.main import main
from unclip.images import metadata

QUICK = ["--seed", "3", "--dtype", "float32", "--quiet"]


def test_prompts_records_and_reproduction(tiny_second_model: Path, tmp_path: Path, capsys) -> None:
    options, file = ["--model", str(tiny_second_model), *QUICK], tmp_path / "cat.png"
    assert main(["generate", "a red cat", "--size", "128x128", *options, "-o", str(file)]) == 0
    with Image.open(file) as image:
        assert image.size == (128, 128)
    assert metadata.read(file)["request"]["size"] == "128x128"
    capsys.readouterr()
    assert main(["show", str(file)]) == 0
    assert "128x128" in capsys.readouterr().out
    assert main(["reproduce", str(file), *options[:2], *QUICK[2:]]) == 0
    assert capsys.readouterr().out == f"{file}: identical pixels\n"


def test_a_prompt_file_mixes_sizes(tiny_second_model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a cat", "size": 128}\n{"prompt": "a dog"}\n')
    arguments = ["batch", str(tmp_path / "prompts.jsonl"), "-o", str(tmp_path / "out"), "--name", "{line}"]
    assert main([*arguments, "--model", str(tiny_second_model), *QUICK]) == 0
    made = sorted((tmp_path / "out").glob("*.png"))
    assert [Image.open(path).size for path in made] == [(128, 128), (32, 32)]


def test_an_edit_keeps_pixels(tiny_second_model: Path, tmp_path: Path) -> None:
    image, mask = noise_image(128, 128), box_mask((128, 128), (20, 20, 120, 100))
    image.save(tmp_path / "image.png")
    mask.save(tmp_path / "mask.png")
    sources = [str(tmp_path / name) for name in ("image.png", "mask.png")]
    options = ["--model", str(tiny_second_model), *QUICK, "--json"]
    assert main(["inpaint", *sources, "a cat", *options, "-o", str(tmp_path / "edited.png")]) == 0
    with Image.open(tmp_path / "edited.png") as edited:
        known = np.asarray(mask) == 0
        assert np.array_equal(pixels(edited)[known], pixels(image)[known])


def test_a_model_without_it_gets_one_clear_line(tiny_model: Path, tmp_path: Path, capsys) -> None:
    arguments = ["generate", "a cat", "--size", "1024x1024", "--model", str(tiny_model), "-o", str(tmp_path / "a.png")]
    assert main([*arguments, *QUICK]) == 2
    line = "unclip: error: tiny does not generate images of 1024x1024; choose from 16x16, 32x32"
    assert capsys.readouterr().err.splitlines() == [line]
    (tmp_path / "prompts.txt").write_text("a cat -- --size 1024x1024\n")
    assert main(["batch", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "out"), *arguments[4:6], *QUICK]) != 0
    assert "choose from 16x16, 32x32" in capsys.readouterr().err + "".join(
        path.read_text() for path in (tmp_path / "out").glob("*.jsonl")
    )


def test_the_default_size_is_that_of_the_first_upsampler(tiny_second_model: Path, capsys) -> None:
    identity = identify_model(tiny_second_model)
    assert identity.sizes == ((16, 16), (32, 32), (128, 128)) and identity.default_size == (32, 32)
    assert sampling_defaults(tiny_second_model)["size"] == "32x32"
    assert main(["models", "show", str(tiny_second_model)]) == 0
    shown = capsys.readouterr().out
    assert "16x16, 32x32, 128x128" in shown and "second_upsampler" in shown
    assert main(["models", "check", str(tiny_second_model)]) == 0


def test_benchmarks_have_the_new_size(tiny_second_model: Path, capsys) -> None:
    options = ["--model", str(tiny_second_model), "--batch-size", "2", "--repeat", "1", "--json"]
    assert main(["bench", *options]) == 0
    assert set(json.loads(capsys.readouterr().out)["images_per_s"]) == {"16x16", "32x32", "128x128"}
