"""`unclip train`: a mistake is one line and exit code 2."""

import signal
from pathlib import Path

import pytest

from unclip.cli.main import main
from unclip.training import run


@pytest.fixture
def call(capsys, tmp_path: Path, monkeypatch):
    """call(*arguments) -> the only line of an error with exit code 2, in an empty folder that stays empty."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        code = main(["train", *arguments])
        captured = capsys.readouterr()
        assert (code, captured.out) == (2, "")
        assert captured.err.startswith("unclip: error: ") and captured.err.count("\n") == 1
        assert not [path for path in tmp_path.rglob("*") if path.suffix != ".toml"]
        return captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vae", "--out", "runs"], "choose from clip, prior, decoder, upsampler, all"),
        (["clip"], "--out"),
        (["clip", "--out", "runs", "--recipe", "stickers-tpu"], "stickers-cpu, stickers-gpu"),
        (["clip", "--out", "runs", "--recipe", "mine.toml"], "no recipe 'mine.toml'"),
        (["clip", "--out", "runs", "--steps", "-3"], "--steps must be at least 1"),
        (["clip", "--out", "runs", "--steps", "many"], "--steps"),
        (["clip", "--out", "runs", "--minutes", "nan"], "--minutes must be"),
        (["clip", "--out", "runs", "--minutes", "-1"], "--minutes must be"),
        (["clip", "--out", "runs", "--device", "gpu"], "choose from auto, cpu"),
        (["clip", "--out", "/dev/null/runs"], "cannot write into"),
        (["decoder", "--out", "runs", "--device", "cpu"], "run `unclip train clip` first"),
        (["prior", "--out", "runs", "--device", "cpu"], "run `unclip train clip` first"),
        (["clip", "--out", "runs", "--resume"], "nothing to resume in runs/clip"),
        (["all", "--out", "runs", "--resume"], "nothing to resume in runs/clip or runs/prior"),
    ],
)
def test_a_mistake_is_one_line(call, arguments: list[str], says: str):
    assert says in call(*arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[data]\nkind = 'scenes'", "mine.toml has no table [clip]"),
        ("[data]\nkind = 'folder'\npath = 'none'\n[clip]", "mine.toml [data]: none: not a folder"),
        ("[data]\nkind = 'scenes'\n[clip.model]\nlayers = 3", "mine.toml [clip.model]: unknown key 'layers'"),
        ("[data]\nkind = 'scenes'\n[clip.model]\nvision_heads = 7", "mine.toml [clip.model]: "),
        ("[data]\nkind = 'scenes'\n[clip.model]\nembed_dim = 8", "text_width = 160 must equal embed_dim = 8"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(call, tmp_path: Path, text: str, says: str):
    (tmp_path / "mine.toml").write_text(text)
    assert says in call("clip", "--out", "runs", "--recipe", "mine.toml", "--device", "cpu")


def test_the_arguments_reach_the_training(monkeypatch, tmp_path: Path):
    given = []
    monkeypatch.setattr(run, "train", lambda *arguments: given.append(arguments))
    out = str(tmp_path / "runs")
    assert main(["train", "all", "--out", out, "--minutes", "1.5", "--resume", "--device", "cpu", "--quiet"]) == 0
    [(*names, options)] = given
    assert names == ["all", "stickers-cpu", out]
    assert vars(options) == {
        "resume": True,
        "init": None,
        "device": "cpu",
        "minutes": 1.5,
        "steps": None,
        "quiet": True,
    }


def test_an_interrupt_ends_with_130(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(run, "train", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert main(["train", "clip", "--out", str(tmp_path / "runs")]) == 130
    assert capsys.readouterr().err == "unclip: interrupted\n"
