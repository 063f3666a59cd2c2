"""`unclip shell`: lines from a pipe and from a terminal."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import noise_image
from unclip.cli import terminal_images
from unclip.cli.main import main
from unclip.images import metadata


@pytest.fixture
def session(tiny_model, capsys, tmp_path, monkeypatch):
    """session(lines, *arguments) -> (exit code, records of the images, errors): lines from a pipe, the tiny model."""
    monkeypatch.chdir(tmp_path)

    def call(lines: str, *arguments: str) -> tuple[int, list[dict], str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        capsys.readouterr()
        quick = ["--model", str(tiny_model), "--size", "16", "--steps", "2", "--json"]
        code = main(["shell", *quick, *arguments])
        out, err = capsys.readouterr()
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return code, [metadata.read(line["file"]) for line in lines], err

    return call


def requests(records: list[dict]) -> list[dict]:
    return [record["request"] for record in records]


def test_prompts_and_settings(session):
    code, found, err = session(
        "a red cat\n\n# a note\n:set steps 3\n:set seed 5..6\na dog\n"
        ":set seed\n:set n 2\n:set steps\na {dog|cat}\n:quit\na cat\n"
    )
    assert code == 0, err
    assert [(one["prompt"], one["steps"]) for one in requests(found)[:3]] == [
        ("a red cat", 2),
        ("a dog", 3),
        ("a dog", 3),
    ]
    assert [record["seed"] for record in found[1:3]] == [5, 6]
    last = requests(found)[3:]
    assert len(last) == 2 and {one["prompt"] for one in last} <= {"a dog", "a cat"}
    assert {one["steps"] for one in last} == {4}  # the model's own
    assert {one["size"] for one in requests(found)} == {"16x16"}


def test_the_current_image_is_varied_and_edited(session, tmp_path):
    noise_image(16, 16).save("photo.png")
    mask = Image.new("L", (16, 16), "black")
    mask.paste("white", (0, 0, 8, 8))
    mask.save("mask.png")
    code, found, err = session(
        ":set seed 1\na red cat\n:vary 0.5\n:edit a dog\n:set right 8\n:outpaint a dog\n"
        ":image photo.png\n:inpaint mask.png a cat\n:undo\n:reconstruct\n"
    )
    assert code == 0, err
    first, varied, edited, wide, inpainted, rebuilt = requests(found)
    assert (varied["mode"], varied["strength"], varied["prompt"]) == ("vary", 0.5, "a red cat")
    assert varied["image"] == "out/a-red-cat-1.png"
    assert (edited["mode"], edited["prompt"], edited["from_prompt"]) == ("edit", "a dog", "a red cat")
    assert edited["image"] == "out/a-red-cat-1-2.png"  # the variation
    assert (wide["mode"], wide["right"]) == ("outpaint", 8)
    assert (inpainted["mode"], inpainted["image"], inpainted["mask"]) == ("inpaint", "photo.png", "mask.png")
    assert (rebuilt["mode"], rebuilt["image"]) == ("reconstruct", "photo.png")


def test_a_sequence_between_the_last_two(session):
    code, found, err = session(":set seed 1\na cat\na dog\n:interpolate 3\n")
    assert code == 0, err
    assert [one.get("fraction") for one in requests(found)[2:]] == [0, 0.5, 1]
    assert requests(found)[2]["sources"] == ["out/a-cat-1.png", "out/a-dog-1.png"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (":sett steps 3", ":sett is not a command; did you mean 'set'?"),
        (":set stps 3", "did you mean 'steps'?"),
        (":set steps 0", "steps must be"),
        (":set steps=x", "steps must be"),
        (":set prompt a cat", "cannot be set"),
        (":set seed 3-4", "such as 1,2,3 or 1..8"),
        (":vary", "there is no image yet"),
        (":undo", "no image before"),
        (":outpaint a dog", "there is no image yet"),
        (":interpolate", "needs two images"),
        (":inpaint", "needs the file of a mask"),
        (":image nothing.png", "is not a file"),
        ("(a cat:1.2)", "weights are not read"),
        ("an __animal__", "a word list"),
    ],
)
def test_a_bad_line_does_not_end_the_session(session, line, says):
    code, found, err = session(f"{line}\na cat\n")
    assert code == 1 and len(found) == 1
    assert says in err and err.count("error:") == 1 and "Traceback" not in err


def test_options_are_the_first_settings_and_images_go_into_the_history(session, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("UNCLIP_HISTORY")
    monkeypatch.setenv("UNCLIP_HISTORY_FILE", str(tmp_path / "history.db"))
    code, found, _ = session("a cat\n:set\n", "--seed", "4", "-n", "2", "--guidance", "0", "-o", "mine", "--quiet")
    assert code == 0 and [record["seed"] for record in found] == [4, 5]
    assert {one["guidance"] for one in requests(found)} == {0}
    assert main(["log", "--json"]) == 0
    assert [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()] == [
        str(tmp_path / "mine" / name) for name in ("a-cat-5.png", "a-cat-4.png")
    ]


@pytest.mark.parametrize("arguments", [["--grid"], ["-o", "one.png"], ["--preview"], ["--images", "braille"]])
def test_options_that_do_not_fit_are_refused(session, arguments, tmp_path):
    code, found, err = session("a cat\n", *arguments)
    assert code == 2 and err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_a_terminal_session(tiny_model, tmp_path):
    """Typed lines, completion by tab, the arrow keys, Ctrl-C, and Ctrl-D, with images by kitty's protocol."""
    pexpect = pytest.importorskip("pexpect")
    pytest.importorskip("prompt_toolkit")
    pytest.importorskip("chafa")
    arguments = ["-m", "unclip", "shell", "--model", str(tiny_model), "--size", "16", "--seed", "1", "--steps", "2"]
    history = {"UNCLIP_HISTORY": "true", "UNCLIP_HISTORY_FILE": str(tmp_path / "data" / "history.db")}
    environment = os.environ | {"TERM": "xterm-kitty", "PROMPT_TOOLKIT_NO_CPR": "1"} | history
    child = pexpect.spawn(sys.executable, arguments, cwd=tmp_path, env=environment, encoding="utf-8", timeout=120)
    child.expect("unclip>")
    child.send("a red cat\r")
    child.expect("out/a-red-cat-1.png")
    child.expect("\x1b_Ga=T")  # an image
    child.expect("unclip>")
    child.send("half a line\x03")  # Ctrl-C clears it
    child.expect("unclip>")
    child.send(":set samp\t")
    child.expect("sampler|ler")  # it may write the rest of the word only
    child.send(" ddim\r")
    child.expect("unclip>")
    child.send(":set\r")
    child.expect("sampler ddim\r\n")
    child.expect("unclip>")
    child.send("\x1b[A\x1b[A\x1b[A\r")  # the prompt again
    child.expect("out/a-red-cat-1-2.png")
    child.expect("unclip>")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert metadata.read(tmp_path / "out" / "a-red-cat-1-2.png")["request"]["sampler"] == "ddim"
    kept = tmp_path / "data" / "shell-history"
    assert "+a red cat" in kept.read_text() and kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("variables", "begins"),
    [
        ({"TERM": "xterm-kitty"}, b"\x1b_G"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, b"\x1b]1337;File=inline=1"),
        ({"TERM": "foot"}, b"\x1bP"),
        ({"TERM": "dumb"}, None),
    ],
)
def test_images_in_terminals(tmp_path, monkeypatch, variables, begins):
    chafa = pytest.importorskip("chafa")
    for name in ("TERM", "TERM_PROGRAM", "COLORTERM", "VTE_VERSION", "KITTY_PID", "TERM_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Image.new("RGB", (64, 32), "red").save(tmp_path / "a.png")
    info = chafa.TermDb().detect()
    mode = terminal_images.pixel_mode(chafa, info)
    if begins is None:
        assert mode is None
    else:
        assert terminal_images.encode(chafa, info, mode, tmp_path / "a.png").startswith(begins)


def test_without_its_library_one_line_names_the_extra(tmp_path):
    code = (
        "import sys; sys.modules['prompt_toolkit'] = None; sys.stdin.isatty = lambda: True\n"
        "from unclip.cli.main import main; sys.exit(main(['shell']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "pip install 'unclip[shell]'" in done.stderr and done.stderr.count("\n") == 1
    assert not Path(tmp_path, "out").exists()
