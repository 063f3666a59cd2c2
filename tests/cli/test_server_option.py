"""`--server`: a running server makes the images of a command, and the files are those of a run on this machine."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import box_mask
from tests.server.conftest import served
from unclip.cli.main import main
from unclip.pipeline import Unclip

FEW = ["--steps", "2", "--seed", "3", "--quiet"]
COMMANDS = {
    "generate": ["generate", "a red cat", "a dog", "-n", "4", "--size", "16"],
    "best of": ["generate", "a red cat", "-n", "2", "--best-of", "3", "--size", "16"],
    "guided": ["generate", "a red cat", "--negative-prompt", "a dog", "--guidance", "0", "--prior-steps", "2"],
    "webp": ["generate", "a red cat", "--format", "webp", "--size", "16"],
    "inpaint": ["inpaint", "photo.png", "mask.png", "a hat", "-n", "2"],
    "inpaint by transparency": ["inpaint", "hole.png", "a hat"],
    "inpaint black": ["inpaint", "photo.png", "mask.png", "a hat", "--mask-mode", "black", "--feather", "2"],
    "outpaint": ["outpaint", "photo.png", "a beach", "--left", "8", "--left-prompt", "a tree"],
    "outpaint to a size": ["outpaint", "photo.png", "a beach", "--size", "40x32", "--anchor", "left"],
    "vary": ["vary", "photo.png", "--strength", "0.5", "-n", "2", "--size", "16"],
    "edit": ["edit", "photo.png", "a dog", "--from", "a cat", "--frames", "3", "--size", "16"],
    "interpolate": ["interpolate", "photo.png", "a red cat", "--frames", "3", "--size", "16"],
    "mix": ["interpolate", "photo.png", "hole.png", "a dog", "--weights", "1,2,1", "--fit", "pad", "--size", "16"],
    "reconstruct": ["reconstruct", "photo.png", "--size", "16"],
}


@pytest.fixture(scope="module")
def server(tiny: Unclip):
    with served(tiny, max_images=3) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    image.save("photo.png")
    mask = box_mask((32, 32), (8, 8, 24, 24))
    mask.save("mask.png")
    image.putalpha(mask.point(lambda value: 255 - value))
    image.save("hole.png")
    return tmp_path


def files(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_files_are_those_of_a_local_run(name, folder, server, tiny_model, capsys) -> None:
    here = ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32", "-o", "here"]
    assert main([*COMMANDS[name], *FEW, *here]) == 0
    printed = capsys.readouterr().out
    assert main([*COMMANDS[name], *FEW, "--server", server, "--model", "tiny", "-o", "there"]) == 0
    assert capsys.readouterr().out == printed.replace("here/", "there/")
    assert files("there") == files("here")


def test_grids_and_films_are_made_here(folder, server) -> None:
    options = [*FEW, "--server", server, "--model", "tiny", "--size", "16", "--frames", "2", "--gif", "--grid"]
    assert main(["interpolate", "a red cat", "a dog", *options, "-o", "out"]) == 0
    assert {"frames.gif", "grid.png"} <= files("out").keys()


def test_torch_is_not_imported(folder, server) -> None:
    code = (
        "import sys; from unclip.cli.main import main;"
        f"sys.argv = ['unclip', 'vary', 'photo.png', '--server', {server!r}, '--model', 'tiny', '--size', '16'];"
        "assert main() == 0; print(*sorted({'torch', 'diffusers', 'open_clip', 'torchvision'} & sys.modules.keys()))"
    )
    root = str(Path(__file__).parents[2])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": root})
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "a cat", "--device", "cpu"], "--device is a server's own choice"),
        (["generate", "a cat", "--preview"], "--preview is a server's own choice"),
        (["generate", "a cat", "--model", "stikers"], "'stikers' does not exist"),
        (["interpolate", "a cat", "photo.png"], "images before prompts"),
        (["generate", "a cat", "--best-of", "9"], "at most 3 images a call"),
        (["vary", "missing.png"], "missing.png"),
        (["inpaint", "photo.png", "photo.png", "--size", "8"], "--size"),
    ],
)
def test_a_call_that_the_server_cannot_take_is_one_line(arguments, words, folder, server, capsys) -> None:
    model = [] if "--model" in arguments else ["--model", "tiny"]
    assert main([*arguments, *FEW, *model, "--server", server]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not Path("out").exists() or not files("out")


def test_an_embedding_is_sent_but_not_as_a_source(folder, server, tiny_model, capsys) -> None:
    assert main(["embed", "photo.png", "-o", "a.safetensors", "--model", str(tiny_model), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["generate", "--embedding", "a.safetensors", *FEW, "--model", "tiny", "--server", server]) == 0
    here = ["--model", str(tiny_model), "--device", "cpu", "--dtype", "float32", "-o", "here"]
    assert main(["generate", "--embedding", "a.safetensors", *FEW, *here]) == 0
    assert files("out") == files("here")
    capsys.readouterr()
    assert main(["interpolate", "a.safetensors", "a cat", *FEW, "--model", "tiny", "--server", server]) == 2
    assert "takes no embedding files" in capsys.readouterr().err


def test_without_a_url_it_is_the_default_of_serve(folder, capsys, monkeypatch) -> None:
    monkeypatch.setattr("http.client.HTTPConnection.connect", refuse)
    for arguments in (["a cat", "--server"], ["--server", "a cat"]):
        assert main(["generate", *arguments, *FEW]) == 2
        assert "no server answers at http://127.0.0.1:8000" in capsys.readouterr().err
    assert main(["generate", "a cat", "--server", "localhost:1", *FEW]) == 2
    assert "no server answers at http://localhost:1 (" in capsys.readouterr().err
    assert main(["generate", "a cat", "--server=ftp://x", *FEW]) == 2
    assert "is not a url" in capsys.readouterr().err


def refuse(connection) -> None:
    raise ConnectionRefusedError("refused")


def test_settings_of_this_machine_do_not_matter_to_a_server(folder, server, monkeypatch) -> None:
    monkeypatch.setenv("UNCLIP_SERVER", server)
    monkeypatch.setenv("UNCLIP_MODEL", "tiny")
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")
    assert main(["generate", "a cat", "--size", "16", *FEW]) == 0


def test_a_key_is_sent(tiny, folder, capsys, monkeypatch) -> None:
    with served(tiny, api_keys=("k",)) as url:
        options = ["--size", "16", "--model", "tiny", "--server", url, *FEW]
        assert main(["generate", "a cat", *options]) == 2
        assert "UNCLIP_API_KEY" in capsys.readouterr().err
        monkeypatch.setenv("UNCLIP_API_KEY", "k")
        assert main(["generate", "a cat", *options]) == 0
