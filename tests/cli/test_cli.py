"""The command line as a whole: help, exit codes, one-line errors."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import typer.main

from unclip.cli.app import app
from unclip.cli.main import main
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import UnclipError
from unclip.images import metadata
from unclip.images.result import Result
from unclip.version import __version__


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """run(*arguments) -> (exit code, output, errors), in an empty folder; reaching the pipeline fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "unclip.pipeline", None)  # importing it raises: a bug, not a message

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_import_and_help_are_light():
    heavy = "{'torch', 'numpy', 'PIL', 'diffusers', 'open_clip', 'tqdm', 'rich'}"
    done = run_python(
        "import sys, unclip; unclip.Request\n"
        "from unclip.cli.main import main; code = main(['generate', '--help'])\n"
        f"print(code, sorted({heavy} & set(sys.modules)))"
    )
    assert done.stdout.splitlines()[-1] == "0 []"


def test_public_names():
    import unclip

    assert unclip.Result is Result
    assert unclip.UnclipError is UnclipError
    assert set(unclip.__all__) <= set(dir(unclip))
    with pytest.raises(AttributeError):
        _ = unclip.Unclipped


def test_version_and_help(run):
    assert run("--version") == (0, f"unclip {__version__}\n", "")
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(command in out for command in ("generate", "train", "models", "show", "bench"))
    assert run("-h") == (0, out, "") and run("generate", "-h") == run("generate", "--help")


COMMANDS = ("generate", "inpaint", "outpaint", "vary", "interpolate", "edit", "reconstruct", "embed", "batch", "show")
COMMANDS += ("reproduce", "again", "sweep", "log", "shell", "models", "config", "train", "evaluate", "bench")


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal(run, monkeypatch, columns, command):
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run(*([command] if command else []), "--help")
    assert code == 0 and max(map(len, out.splitlines())) <= columns
    assert "UNCLIP_" not in out.replace("UNCLIP_DEVICE", "")  # no variable behind every option


def test_help_is_in_groups(run):
    out = run("--help")[1]
    assert all(f"\n{group}:\n" in out for group in ("Generate", "Prompt files and records", "Training and evaluation"))
    out = run("generate", "--help")[1]
    groups = ["Arguments", "Image", "Prompts", "Sampling", "Speed", "Prior", "Output", "Model and device", "Options"]
    assert [line[:-1] for line in out.splitlines() if line.endswith(":") and line[0] != " "] == groups
    assert "[default: the model's: dpmpp-2m]" in out and "[default: stickers]" in out


def test_help_shows_the_defaults_of_the_model(run, tiny_model, monkeypatch, tmp_path):
    def steps(*arguments: str) -> str:
        [line] = [line for line in run(*arguments, "--help")[1].splitlines() if line.startswith("  --steps")]
        return line

    monkeypatch.setenv("COLUMNS", "100")
    assert steps("generate").endswith("[default: the model's: 8]")
    assert steps("generate", "--model", str(tiny_model)).endswith("[default: the model's: 4]")
    assert steps("batch", f"--model={tiny_model}").endswith("[default: the model's: 4]")
    assert steps("generate", "--model", "nowhere").endswith("[default: the model's]")
    assert steps("again").endswith("[default: as recorded]")
    assert not re.search(r"default: (the model|uniform|all)", run("again", "--help")[1])
    (tmp_path / "unclip.toml").write_text(f'model = "{tiny_model}"\n')
    assert steps("generate").endswith("[default: the model's: 4]")


def leaf_commands(group=app, names=()):
    command = typer.main.get_command(group) if not hasattr(group, "params") else group
    for name, one in getattr(command, "commands", {}).items():
        yield from leaf_commands(one, (*names, name)) if hasattr(one, "commands") else [(*names, name)]


@pytest.mark.parametrize("names", list(leaf_commands()), ids=" ".join)
def test_each_command_has_an_example_that_begins_with_its_name(run, names):
    code, out, _ = run(*names, "--help")
    assert code == 0 and re.search(rf"\n  Examples?:\n(    .*\n)*    .*unclip {' '.join(names)}\b", out)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("generate x --sampler d", [name for name in SAMPLER_NAMES if name.startswith("d")]),
        ("generate x --prior-sampler un", [name for name in SAMPLER_NAMES if name.startswith("un")]),
        ("generate x --model st", ["stickers"]),
        ("models show st", ["stickers"]),
        ("generate x --size ", ["64x64", "256x256", "1024x1024"]),
        ("generate x --model TINY --size ", ["16x16", "32x32"]),
        ("batch x --set mode=in", ["mode=inpaint", "mode=interpolate"]),
        ("sweep x --vary prior_st", ["prior_steps="]),
        ("again x --set fit=", ["fit=crop", "fit=pad"]),
        ("inpaint a.png --mask-mode ", ["white", "black", "alpha"]),
        ("vary a.png --format p", ["png"]),
    ],
)
def test_values_are_completed(tiny_model, line, found):
    words = f"unclip {line}".replace("TINY", str(tiny_model))
    count = len(words.split()) if words.endswith(" ") else len(words.split()) - 1
    asked = {"_UNCLIP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = subprocess.run(
        [sys.executable, "-m", "unclip"], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == found


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("--negative", "--negative-prompt", "\udcff"), ("--harmonize", "--resample", "0"), ("--share", "--fraction", "2")],
)
def test_old_option_names_are_read_and_not_shown(run, old, new, value):
    command = {"--harmonize": ["inpaint", "a.png"], "--share": ["interpolate", "a", "b"]}.get(
        old, ["generate", "a cat"]
    )
    code, _, err = run(*command, old, value)
    assert code == 2 and err == run(*command, new, value)[2] and "No such option" not in err
    assert run(*command, f"{old}={value}")[2] == err
    assert f"{old} " not in run(command[0], "--help")[1]


def test_no_command_prints_the_help_as_a_usage_error(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "generate" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frob"], "No such command"),
        (["generate"], "PROMPT"),
        (["generate", ""], "prompt is empty"),
        (["generate", "a cat", "  "], "prompt is empty"),
        (["generate", "a cat", "-n", "0"], "n must be"),
        (["generate", "a cat", "-n", "two"], "-n"),
        (["generate", "a cat", "--steps", "0"], "steps must be"),
        (["generate", "a cat", "--seed", "-1"], "seed must be"),
        (["generate", "a cat", "--seed", str(2**63)], "seed must be"),
        (["generate", "a cat", "--seed", str(2**63 - 1), "-n", "2"], "use a seed up to"),
        (["generate", "a cat", "--guidance", "nan"], "guidance must be"),
        (["generate", "a cat", "--sampler", "euler"], "choose from unclip"),
        (["generate", "a cat", "--size", "big"], "such as 64x64"),
        (["generate", "a cat", "--device", "gpu"], "choose from auto, cpu"),
        (["generate", "a cat", "--device", "cuda:x"], "cuda:N"),
        (["generate", "a cat", "--guidance", "1e30"], "from 0 to 1000"),
        (["generate", "a cat", "--dtype", "int8"], "choose from auto, float32"),
        (["generate", "a cat", "--batch-size", "0"], "--batch-size must be"),
        (["generate", "a cat", "--sede", "3"], "--seed"),
        (["generate", "a cat", "-n", "2", "-o", "a.png"], "give a folder"),
        (["generate", "a cat", "a dog", "-o", "a.PNG"], "for 2 images"),
        (["generate", "a cat", "-o", "a.gif"], "ends in .png"),
        (["generate", "a cat", "-o", "a.jpg", "--format", "png"], "disagree"),
        (["generate", "a cat", "--format", "gif"], "choose from png"),
        (["generate", "a cat", "-o", "taken"], "is a file"),
        (["generate", "a cat", "-o", "taken/below"], "cannot write into"),
        (["generate", "a cat", "-o", "taken/a.png"], "cannot write into"),
        (["generate", "a cat", "-o", "nul\0"], "cannot write into"),
        (["generate", "a cat", "-o", "x" * 300], "cannot write into"),
        (["show", "missing.png"], "cannot read"),
        (["show", "taken"], "not a PNG"),
        (["train", "all"], "--out"),
        (["train", "vae", "--out", "runs"], "choose from clip"),
        (["train", "clip", "--out", "runs", "--minutes", "0"], "--minutes must be"),
        (["train", "clip", "--out", "runs", "--minutes", "inf"], "--minutes must be"),
        (["train", "clip", "--out", "runs", "--steps", "0"], "--steps must be"),
        (["train", "clip", "--out", "runs", "--steps", "5", "--minutes", "1"], "give one of them"),
        (["train", "clip", "--out", "taken"], "cannot write into"),
        (["models", "show", "missing"], "no model 'missing'"),
        (["bench", "--repeat", "0"], "--repeat must be"),
        (["bench", "--device", "gpu"], "choose from auto, cpu"),
        (["bench", "--model", "nope"], "no model 'nope'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run, tmp_path, arguments, says):
    (tmp_path / "taken").write_text("mine")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("unclip: error: ") and err.count("\n") == 1
    assert says in err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that refuses even root")
def test_a_folder_that_refuses_files(run):
    code, _, err = run("generate", "a cat", "-o", "/proc/self/out")
    assert code == 2 and "cannot write into" in err


def test_show_prints_the_record(run, result: Result, tmp_path):
    result.save(tmp_path / "image.png")
    code, out, err = run("show", "image.png")
    assert (code, err) == (0, "")
    assert json.loads(out)["request"]["prompt"] == result.request.prompt


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UnclipError("it\nfailed"), 1, "unclip: error: it failed\n"),
        (OSError(28, "No space left on device"), 1, "unclip: error: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "unclip: interrupted\n"),
    ],
)
def test_exit_codes_of_other_errors(run, monkeypatch, error, code, line):
    def fail(_):
        raise error

    monkeypatch.setattr(metadata, "read", fail)
    assert run("show", "image.png") == (code, "", line)


def test_a_bug_is_raised(run, monkeypatch):
    monkeypatch.setattr(metadata, "read", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("show", "image.png")


def test_the_program_as_a_process(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "unclip", "generate", "", "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "unclip: error: prompt is empty; say what the image should show, or give an embedding\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_real_interrupt_ends_with_130():
    code = (
        "import os, signal, sys, unclip.images.metadata; from unclip.cli.main import main\n"
        f"unclip.images.metadata.read = lambda path: os.kill(os.getpid(), {int(signal.SIGINT)})\n"
        "sys.exit(main(['show', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "unclip: interrupted\n")
