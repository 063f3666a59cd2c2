"""The history and `unclip log`."""

import json
import stat
from pathlib import Path

import pytest

from tests.helpers import noise_image
from unclip.cli.main import main
from unclip.images import metadata


@pytest.fixture
def run(tiny_model, capsys, tmp_path, monkeypatch):
    """run(*arguments) -> (exit code, output, errors), in an empty folder, with a history of its own."""
    monkeypatch.delenv("UNCLIP_HISTORY")
    monkeypatch.setenv("UNCLIP_HISTORY_FILE", str(tmp_path / "data" / "history.db"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return call


def make(run, tiny_model, *arguments: str) -> list[str]:
    quick = ["--model", str(tiny_model), "--size", "16", "--steps", "2", "--quiet"]
    code, out, err = run(*arguments, *quick)
    assert code == 0, err
    return [line.rpartition("  seed ")[0] for line in out.splitlines()]


def log(run, *arguments: str) -> list[dict]:
    code, out, _ = run("log", *arguments, "--json")
    assert code == 0
    return [json.loads(line) for line in out.splitlines()]


def test_each_image_of_a_command_is_kept_and_found(run, tiny_model, tmp_path):
    assert run("log") == (0, "", "unclip: note: the history is empty\n")
    assert not (tmp_path / "data").exists()  # reading makes no file
    files = make(run, tiny_model, "generate", "a red cat", "a blue dog", "--seed", "3", "-n", "2")
    noise_image(16, 16).save("photo.png")
    make(run, tiny_model, "vary", "photo.png", "-o", "v.png", "--seed", "1")
    found = log(run)
    assert [one["id"] for one in found] == [5, 4, 3, 2, 1]
    assert [one["file"] for one in reversed(found)] == [str(Path(file).absolute()) for file in [*files, "v.png"]]
    for one in found:
        record = metadata.read(one["file"])
        assert one["exists"] and {name: one[name] for name in record} == record | {"request": one["request"]}
    assert found[0]["request"]["image"] == str(Path("photo.png").absolute())  # the record has "photo.png"
    assert [one["id"] for one in log(run, "RED", "cat")] == [2, 1]
    assert [one["id"] for one in log(run, "vary")] == [5]
    assert [one["id"] for one in log(run, "-n", "2")] == [5, 4]
    assert log(run, "c%t") == log(run, "r_d cat") == []
    code, out, _ = run("log", "dog")
    lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines] == ["@4", "@3"]
    assert lines[0].endswith(f"generate  seed 4  a blue dog  {Path(files[3]).absolute()}")
    assert stat.S_IMODE((tmp_path / "data" / "history.db").stat().st_mode) == 0o600


def test_any_image_is_made_again_from_any_folder(run, tiny_model, tmp_path, monkeypatch):
    noise_image(16, 16).save("photo.png")
    link = Path("model")
    link.symlink_to(tiny_model)
    code, *_ = run(
        "vary", "photo.png", "--model", "model", "--size", "16", "--steps", "2", "--seed", "1", "-o", "v.png"
    )
    assert code == 0
    made = metadata.read("v.png")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    code, out, err = run("reproduce", "@1")
    assert (code, out, err) == (0, "@1: identical pixels\n", "")
    code, _, err = run("again", "@1", "--seed", "2", "-o", "again.png", "--quiet")
    assert code == 0, err
    found = metadata.read("again.png")
    assert found["request"]["strength"] == made["request"]["strength"] and found["seed"] == 2
    (tmp_path / "work" / "v.png").unlink()
    assert run("log")[1].splitlines()[-1].endswith("v.png  (the file is gone)")
    assert run("reproduce", "@1", "-o", "v.png")[:2] == (0, "@1: identical pixels; the new image is v.png\n")
    assert metadata.read("v.png")["pixels"] == made["pixels"]


@pytest.mark.parametrize("off", ["setting", "variable", "option"])
def test_it_can_be_off(run, tiny_model, tmp_path, monkeypatch, off):
    make(run, tiny_model, "generate", "a cat", "--seed", "1", "-o", "cat.png", "--no-history")
    if off == "setting":
        Path("unclip.toml").write_text("history = false\n")
    elif off == "variable":
        monkeypatch.setenv("UNCLIP_HISTORY", "false")
    more = ["--no-history"] if off == "option" else []
    for command in (["generate", "a cat"], ["again", "cat.png"], ["vary", "cat.png"]):
        make(run, tiny_model, *command, *more)
    assert log(run) == [] and not (tmp_path / "data").exists()


def test_a_history_that_cannot_be_used_ends_nothing(run, tiny_model, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "history.db").write_text("not a database, by far")
    code, out, err = run("generate", "a cat", "--model", str(tiny_model), "--steps", "1", "--seed", "1", "-n", "2")
    assert code == 0 and len(out.splitlines()) == 2
    assert err.count("file is not a database") == 1 and "set history = false" in err
    code, _, err = run("log")
    assert code == 2 and err.count("\n") == 1 and "cannot be used" in err
    assert (tmp_path / "data" / "history.db").read_text() == "not a database, by far"


def test_unknown_numbers_and_clearing(run, tiny_model, tmp_path):
    code, _, err = run("again", "@7")
    assert code == 2 and "the history has no image @7; `unclip log` lists them" in err
    [file] = make(run, tiny_model, "generate", "a secret cat", "--seed", "1")
    assert run("log", "--clear")[1] == "1 images deleted from the history; their files stay\n"
    assert log(run) == [] and Path(file).exists()
    assert b"secret" not in (tmp_path / "data" / "history.db").read_bytes()
    make(run, tiny_model, "generate", "a cat", "--seed", "1")
    assert [one["id"] for one in log(run)] == [2]  # numbers are not used again
