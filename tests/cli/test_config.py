import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unclip.cli.config import files
from unclip.cli.main import main


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """call(*arguments) -> (exit code, output, errors), in an empty folder, with user.toml as the user's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNCLIP_CONFIG", str(tmp_path / "user.toml"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def in_force(call) -> dict[str, tuple]:
    code, out, _ = call("config", "--json")
    assert code == 0
    entries = [json.loads(line) for line in out.splitlines()]
    return {f"{entry['command']}.{entry['name']}": (entry["value"], entry["source"]) for entry in entries}


def test_a_stronger_place_wins(call, monkeypatch):
    assert in_force(call)["batch.steps"] == (None, "default")
    Path("user.toml").write_text("steps = 1\nguidance = 1.5\nnegative = 'x'\n")
    Path("unclip.toml").write_text("steps = 2\n[batch]\nsteps = 3\nbatch_size = 4\nset = ['prior_best_of=2']\n")
    found = in_force(call)
    assert found["generate.steps"] == (2, "unclip.toml") and found["batch.steps"] == (3, "unclip.toml [batch]")
    assert found["generate.guidance"][0] == 1.5 and found["generate.guidance"][1].endswith("user.toml")
    assert found["batch.batch-size"][0] == 4 and found["generate.batch-size"] == (None, "default")
    monkeypatch.setenv("UNCLIP_STEPS", "5")
    monkeypatch.setenv("UNCLIP_STEPZ", "5")
    assert in_force(call)["batch.steps"] == ("5", "UNCLIP_STEPS")
    assert 'generate.steps = "5"  (UNCLIP_STEPS)' in call("config")[1]
    assert call("config")[2] == "unclip: note: UNCLIP_STEPZ is the name of no setting\n"


def test_settings_reach_the_commands_and_the_command_line_wins(call, monkeypatch):
    Path("p.txt").write_text("a cat\n")
    Path("unclip.toml").write_text("model = 'none'\n[batch]\ndry-run = true\n")
    assert "'dry-run' is not a setting" in call("batch", "p.txt")[2]
    Path("unclip.toml").write_text("model = 'none'\n[batch]\njson = true\nn = 3\n")
    assert "no model 'none'" in call("batch", "p.txt", "--dry-run")[2]
    _, out, _ = call("batch", "p.txt", "--dry-run", "--model", "stickers")
    assert json.loads(out)["images"] == 3
    _, out, _ = call("batch", "p.txt", "--dry-run", "--model", "stickers", "-n", "2")
    assert json.loads(out)["images"] == 2
    monkeypatch.setenv("UNCLIP_JSON", "no")
    assert call("batch", "p.txt", "--dry-run", "--model", "stickers")[1].startswith("images  3\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("steps = ", "unclip.toml: "),
        ("stepz = 3", "unclip.toml: 'stepz' is not a setting; did you mean 'steps'?"),
        ("[train]\nsteps = 3", "unclip.toml: [train] is no command that makes pictures"),
        ("quiet = 'maybe'", "unclip.toml: quiet is true or false, not 'maybe'"),
        ("steps = true", "unclip.toml: steps cannot be True"),
        ("steps = [1, 2]", "unclip.toml: steps cannot be [1, 2]"),
        ("steps = 2024-01-01", "unclip.toml: steps cannot be"),
        ("steps = 'many'", "(from unclip.toml)"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(call, text, says):
    Path("unclip.toml").write_text(text)
    code, out, err = call("generate", "a cat")
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1


def test_the_users_own_file_is_where_the_system_keeps_such_files(monkeypatch):
    monkeypatch.delenv("UNCLIP_CONFIG")
    user, here = files()
    assert (user.name, here) == ("unclip.toml", Path("unclip.toml"))
    assert user.is_absolute() and "unclip" in user.parent.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell):
    words = {"COMP_WORDS": "unclip ba", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "unclip ba"}
    environment = {**os.environ, **words, "PYTHONPATH": str(Path(__file__).parents[2])}
    program = [sys.executable, "-m", "unclip"]
    for kind, says in (("source", "unclip"), ("complete", "batch")):
        told = {**environment, "_UNCLIP_COMPLETE": f"{kind}_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        done = subprocess.run(program, env=told, capture_output=True, text=True)
        assert done.returncode == 0 and says in done.stdout and not done.stderr


def test_what_the_command_line_leaves_no_room_for_is_no_setting_in_force(call, tiny_model, monkeypatch):
    Image.new("RGB", (16, 16)).save("photo.png")
    for name, value in {
        "MODEL": str(tiny_model),
        "DEVICE": "cpu",
        "SIZE": "16x16",
        "FORMAT": "webp",
        "STEPS": "1",
    }.items():
        monkeypatch.setenv(f"UNCLIP_{name}", value)
    assert call("outpaint", "photo.png", "a cat", "--left", "4", "-o", "x.png")[0] == 0
    with Image.open("x.png") as image:
        assert image.size == (20, 16) and image.format == "PNG"
    monkeypatch.setenv("UNCLIP_STEPZ", "5")
    assert "UNCLIP_STEPZ is the name of no setting" in call("generate", "a cat", "-o", "out")[2]
    assert len(list(Path("out").glob("*.webp"))) == 1
