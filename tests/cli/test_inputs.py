"""A bad input file is found before the model is loaded, by every command that has one."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.helpers import box_mask, noise_image
from unclip.cli.main import main


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(*arguments) -> (exit code, errors), in a folder with inputs; loading a model fails the test."""
    monkeypatch.chdir(tmp_path)
    noise_image(64, 64).save("photo.png")
    Path("cut.png").write_bytes(Path("photo.png").read_bytes()[:3000])
    Path("text.png").write_text("no image")
    Path("e.safetensors").write_bytes(b"no embedding")
    box_mask((30, 30), (0, 0, 9, 9)).save("mask.png")
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("clear.png")

    def from_pretrained(*_, **__):
        raise AssertionError("the model is loaded")

    unclip = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "unclip.pipeline", SimpleNamespace(Unclip=unclip))

    def run(*arguments: str) -> tuple[int, str]:
        code = main(arguments)
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vary", "none.png"], "cannot read the image 'none.png'"),
        (["vary", "text.png"], "'text.png' is not a readable image"),
        (["vary", "cut.png"], "'cut.png'"),
        (["reconstruct", "cut.png"], "'cut.png'"),
        (["edit", "cut.png", "a cat"], "'cut.png'"),
        (["edit", "photo.png", "--embedding", "e.safetensors"], "cannot read 'e.safetensors' as safetensors"),
        (["interpolate", "a cat", "cut.png"], "'cut.png'"),
        (["interpolate", "a cat", "e.safetensors"], "'e.safetensors'"),
        (["inpaint", "photo.png", "cut.png", "a cat"], "the mask 'cut.png'"),
        (["inpaint", "photo.png", "mask.png", "a cat"], "30x30"),
        (["outpaint", "photo.png", "a cat", "--size", "40x40"], "smaller than the image"),
        (["outpaint", "text.png", "a cat", "--left", "9"], "'text.png' is not a readable image"),
        (["generate", "--embedding", "e.safetensors"], "'e.safetensors'"),
        (["embed", "cut.png", "-o", "new.safetensors"], "'cut.png'"),
        (["embed", "(a cat:1.2)", "-o", "new.safetensors"], "weights are not read"),
        (["interpolate", "a cat", "(a dog:1.2)"], "sources has a weight"),
        (["edit", "photo.png", "a cat", "--from", "((a dog))"], "from_prompt has a weight"),
        (["embed", "e.safetensors", "-o", "new.safetensors"], "give an image or a prompt"),
    ],
)
def test_a_bad_input(call, arguments, says):
    code, err = call(*arguments)
    assert code == 2 and says in err and err.count("\n") == 1


def test_the_lines_of_a_batch(call):
    Path("p.csv").write_text("mode,image,embedding,prompt\nvary,text.png,,\ngenerate,,e.safetensors,\n")
    code, err = call("batch", "p.csv")
    assert code == 1 and "p.csv:2: the image 'text.png' is not a readable image" in err
    assert "p.csv:3: cannot read 'e.safetensors' as safetensors" in err and "2 bad lines" in err
