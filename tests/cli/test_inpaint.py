"""`unclip inpaint` and `unclip outpaint`, as commands."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.cli.inpaint import split_mask_and_prompt
from unclip.cli.main import main
from unclip.images import metadata

BOX = (slice(4, 20), slice(6, 30))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    free = np.zeros((40, 50), np.uint8)
    free[BOX] = 255
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(free).save("mask.png")
    Image.fromarray(np.dstack([pixels, 255 - free])).save("clear.png")
    return tmp_path


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("sources", [["photo.png", "mask.png", "a cat"], ["clear.png", "a cat"]])
def test_inpaint(folder: Path, tiny_model: Path, sources: list[str], capsys) -> None:
    options = ["--model", str(tiny_model), "--device", "cpu", "--seed", "3", "--feather", "0", "-o", "new.png"]
    assert main(["inpaint", *sources, *options]) == 0
    assert capsys.readouterr().out == "new.png  seed 3\n"
    same = (pixels("new.png") == pixels("photo.png")).all(-1)
    free = np.zeros_like(same)
    free[BOX] = True
    assert same[~free].all()
    assert same[free].mean() < 0.1
    request = metadata.read("new.png")["request"]
    assert (request["mode"], request["image"], request["prompt"]) == ("inpaint", sources[0], "a cat")


def test_outpaint(folder: Path, tiny_model: Path) -> None:
    options = ["--model", str(tiny_model), "--device", "cpu", "--seed", "3"]
    assert main(["outpaint", "photo.png", "a cat", "--left", "10", "--size", "70x40", *options]) == 2
    assert main(["outpaint", "photo.png", "--size", "70x40", "--anchor", "right", *options, "-o", "out"]) == 0
    assert np.array_equal(pixels("out/photo-3.png")[:, 20:], pixels("photo.png"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inpaint", "none.png", "mask.png", "x"], "cannot read the image 'none.png'"),
        (["inpaint", "photo.png", "a cat"], "mask is missing"),
        (["inpaint", "photo.png", "mask.png", "a", "cat"], "quote the prompt"),
        (["inpaint", "photo.png", "mask.png", "x", "--mask-mode", "red"], "mask_mode 'red' is unknown"),
        (["inpaint", "photo.png", "mask.png", "x", "--keep-style", "2"], "keep_style must be a number from 0 to 1"),
        (["outpaint", "photo.png", "x"], "say how far"),
        (["outpaint", "photo.png", "x", "--left", "4", "--anchor", "top"], "anchor needs size"),
        (["outpaint", "photo.png", "x", "--left", "-4"], "left must be a whole number from 0"),
    ],
)
def test_mistakes_are_one_line_and_code_2(folder: Path, tiny_model: Path, arguments, said: str, capsys) -> None:
    assert main([*arguments, "--model", str(tiny_model), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_one_argument_is_a_mask_if_it_is_a_files_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_mask_and_prompt(["a mask.png"]) == (None, "a mask.png")  # which a Request refuses
    assert split_mask_and_prompt(["cat"]) == (None, "cat")
    assert split_mask_and_prompt(["a cat " * 100]) == (None, "a cat " * 100)  # longer than a name may be
    for name in ("a mask.png", "cat"):
        Path(name).touch()
    assert split_mask_and_prompt(["cat"]) == ("cat", "")  # no prompt is the name of a file
    assert split_mask_and_prompt(["a mask.png"]) == ("a mask.png", "")
    assert split_mask_and_prompt(["a.png", "a cat"]) == ("a.png", "a cat")
    assert split_mask_and_prompt(["a.png"]) == ("a.png", "")
    assert split_mask_and_prompt(["a cat"]) == (None, "a cat")
    assert split_mask_and_prompt([]) == (None, "")
