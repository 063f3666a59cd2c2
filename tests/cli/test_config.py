"""Settings from unclip.toml and UNCLIP_* variables, and `unclip config`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unclip.cli.main import main
from unclip.cli.settings import files


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


def test_the_working_folder_wins_over_the_user_and_variables_over_files(call, monkeypatch):
    assert in_force(call)["batch.steps"] == (None, "default")
    Path("user.toml").write_text("steps = 1\nguidance = 1.5\nnegative = 'x'\n")
    Path("unclip.toml").write_text("steps = 2\n[batch]\nsteps = 3\nbatch_size = 4\nset = ['prior_best_of=2']\n")
    found = in_force(call)
    assert found["generate.steps"] == (2, "unclip.toml") and found["batch.steps"] == (3, "unclip.toml [batch]")
    assert found["generate.guidance"][0] == 1.5 and found["generate.guidance"][1].endswith("user.toml")
    assert found["batch.batch-size"][0] == 4 and found["generate.batch-size"] == (16, "default")
    monkeypatch.setenv("UNCLIP_STEPS", "5")
    monkeypatch.setenv("UNCLIP_STEPZ", "5")
    for name in ("UNCLIP_ERRORS", "UNCLIP_PARENT"):  # of the processes of --processes
        monkeypatch.setenv(name, "3")
    assert in_force(call)["batch.steps"] == (5, "UNCLIP_STEPS")
    assert "generate.steps = 5  (UNCLIP_STEPS)" in call("config")[1]
    assert call("config")[2] == "unclip: note: UNCLIP_STEPZ is not a setting; did you mean 'UNCLIP_STEPS'?\n"


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
        ("[batch]\nstep = 3", "unclip.toml [batch]: 'step' is not a setting; did you mean 'steps'?"),
        ("[train]\nsteps = 3", "unclip.toml: [train] is not a command with settings"),
        ("[generat]\nsteps = 3", "unclip.toml: [generat] is not a command with settings; did you mean 'generate'?"),
        ("quiet = 'maybe'", "unclip.toml: quiet must be true or false, not 'maybe'"),
        ("steps = true", "unclip.toml: steps cannot be True"),
        ("steps = [1, 2]", "unclip.toml: steps cannot be [1, 2]"),
        ("steps = 2024-01-01", "unclip.toml: steps cannot be"),
        ("steps = 'many'", "unclip.toml: steps cannot be 'many'"),
        ("steps = 2.5", "unclip.toml: steps cannot be '2.5'"),
        ("steps = 0", "unclip.toml: steps must be a whole number from 1 to 1000, not 0"),
        ("[generate]\ndevice = 'gpu'", "unclip.toml [generate]: unknown device 'gpu'"),
        ("batch-size = 0", "unclip.toml: --batch-size must be at least 1, not 0"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(call, text, says):
    Path("unclip.toml").write_text(text)
    for arguments in (["generate", "a cat"], ["config"]):
        code, _, err = call(*arguments)
        assert code == 2 and says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("UNCLIP_STEPS", "abc", "UNCLIP_STEPS: steps cannot be 'abc'"),
        ("UNCLIP_STEPS", "0", "UNCLIP_STEPS: steps must be"),
        ("UNCLIP_GUIDANCE", "nan", "UNCLIP_GUIDANCE: guidance must be"),
        ("UNCLIP_SAMPLER", "euler", "UNCLIP_SAMPLER: sampler 'euler' is unknown"),
        ("UNCLIP_QUIET", "maybe", "UNCLIP_QUIET: quiet cannot be 'maybe'"),
        ("UNCLIP_MEMORY", "huge", "UNCLIP_MEMORY: unknown memory 'huge'"),
        ("UNCLIP_FORMAT", "gif", "UNCLIP_FORMAT: --format 'gif' is unknown"),
        ("UNCLIP_MODEL", "stikers", "UNCLIP_MODEL: no model 'stikers'"),
        ("UNCLIP_SIZE", "big", "UNCLIP_SIZE: size must be"),
    ],
)
def test_config_refuses_variables_that_generate_refuses(call, monkeypatch, name, value, says):
    monkeypatch.setenv(name, value)
    for arguments in (["generate", "a cat"], ["config"]):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "") and says in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        (["inpaint", "photo.png"], "MASK_MODE", "grey"),
        (["inpaint", "photo.png"], "FEATHER", "-1"),
        (["inpaint", "photo.png"], "RESAMPLE", "0"),
        (["inpaint", "photo.png"], "KEEP_STYLE", "2"),
        (["outpaint", "photo.png"], "ANCHOR", "middle"),
        (["outpaint", "photo.png"], "LEFT", "-4"),
        (["vary", "photo.png"], "STRENGTH", "nan"),
        (["vary", "photo.png"], "FIT", "squeeze"),
        (["interpolate", "a", "b"], "FRACTION", "7"),
        (["interpolate", "a", "b"], "WEIGHTS", "1,x"),
        (["edit", "photo.png"], "THETA", "-1"),
        (["edit", "photo.png"], "FRAMES", "1"),
        (["reconstruct", "photo.png"], "COMPONENTS", "5,none"),
        (["batch", "p.txt"], "SHARD", "3/2"),
        (["batch", "p.txt"], "NAME", "same"),
        (["batch", "p.txt"], "SET", "stepz=3"),
        (["batch", "p.txt"], "INPUT_FORMAT", "xml"),
        (["evaluate"], "ONLY", "nothing"),
        (["evaluate"], "SPLIT", "all"),
        (["bench"], "AGAINST", "others"),
    ],
)
def test_config_refuses_what_each_command_refuses(call, monkeypatch, command, name, value):
    Image.new("RGB", (16, 16)).save("photo.png")
    Path("p.txt").write_text("a cat\n")
    monkeypatch.setenv(f"UNCLIP_{name}", value)
    refused = call(*command)
    assert refused[:2] == (2, "") and refused[2].startswith(f"unclip: error: UNCLIP_{name}: ")
    assert refused[2].count("\n") == 1 and call("config") == refused


def test_settings_do_not_stop_commands_without_settings(call):
    Path("unclip.toml").write_text("steps = ")
    assert call("models", "list")[0] == 0 and call("--help")[0] == 0


@pytest.mark.parametrize(
    ("command", "old", "new", "value"),
    [
        ("generate", "negative", "negative-prompt", "fog"),
        ("inpaint", "harmonize", "resample", 3),
        ("interpolate", "share", "fraction", 0.5),
    ],
)
def test_old_names_are_still_read(call, monkeypatch, command, old, new, value):
    for key in (old, new):
        for table, source in (("", "unclip.toml"), (f"[{command}]\n", f"unclip.toml [{command}]")):
            Path("unclip.toml").write_text(f"{table}{key} = {value!r}\n")
            assert in_force(call)[f"{command}.{new}"] == (value, source)
    Path("unclip.toml").unlink()
    variable = f"UNCLIP_{old.upper()}"
    monkeypatch.setenv(variable, str(value))
    assert in_force(call)[f"{command}.{new}"] == (value, variable)
    assert call("config")[2] == ""
    monkeypatch.setenv(f"UNCLIP_{new.upper().replace('-', '_')}", "1")  # the new name wins
    assert str(in_force(call)[f"{command}.{new}"][0]) in ("1", "1.0")


def test_a_value_from_a_variable_may_have_spaces(call, monkeypatch):
    monkeypatch.setenv("UNCLIP_SET", "negative_prompt=a cat")
    assert in_force(call)["batch.set"] == (["negative_prompt=a cat"], "UNCLIP_SET")


def test_the_users_file_is_in_the_configuration_folder(monkeypatch):
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


def test_settings_that_contradict_the_command_line_are_dropped(call, tiny_model, monkeypatch):
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
    assert "UNCLIP_STEPZ is not a setting" in call("generate", "a cat", "-o", "out")[2]
    assert len(list(Path("out").glob("*.webp"))) == 1


def test_settings_of_all_commands_reach_options_that_can_be_repeated(call, monkeypatch):
    Path("unclip.toml").write_text("model = 'a/model'\n[serve]\nallow-host = ['one', 'two']\n")
    found = in_force(call)
    assert found["serve.model"] == (["a/model"], "unclip.toml") and found["generate.model"][0] == "a/model"
    assert found["serve.allow-host"][0] == ["one", "two"]
    monkeypatch.setenv("UNCLIP_MODEL", "b/another")
    assert in_force(call)["serve.model"] == (["b/another"], "UNCLIP_MODEL")


def test_keys_are_not_displayed(call, monkeypatch):
    monkeypatch.setenv("UNCLIP_API_KEY", "s3cret")
    assert in_force(call)["serve.api-key"] == ("(hidden)", "UNCLIP_API_KEY")
    assert "s3cret" not in call("config")[1]
