"""`unclip train`: a mistake is one line and exit code 2."""

import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.forked import forks, in_processes
from unclip.cli.main import main
from unclip.training import run
from unclip.training.recipe_tables import STAGES


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


RECIPE = """
[data]
kind = "scenes"

[clip.fit]
batch_size = 5
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sessions of POSIX")
def test_what_ends_several_processes_is_one_line(tmp_path: Path, capfd, monkeypatch):
    (tmp_path / "five.toml").write_text(RECIPE)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "clip", "--recipe", "five.toml", "--out", "runs", "--device", "cpu", "--processes", "2"]) == 2
    error = "five.toml [clip.fit]: batch_size = 5 is the whole batch, which 2 processes cannot divide equally"
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err
    # torch's own threads may add a line of theirs as the other process ends.
    assert err.splitlines()[-1] == f"unclip: error: {error}: set it to 4 or 6, or use other numbers"
    assert err.count("unclip: error") == 1
    assert not list((tmp_path / "runs").glob("*"))


@forks
def test_the_main_one_of_several_processes_reports_their_error(tmp_path: Path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_processes(2, lambda _: main(["train", "clip", "--recipe", "none.toml", "--out", "runs"])) == [2, 2]
    assert capfd.readouterr().err.count("no recipe 'none.toml'") == 1
    words = ["train", "clip", "--out", "runs", "--device", "cpu", "--processes", "2"]
    assert in_processes(2, lambda _: main(words)) == [2, 2]
    assert capfd.readouterr().err.count("leave it out under torchrun and accelerate launch") == 1


def test_processes_that_the_environment_names_in_part(call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert "WORLD_SIZE is set without RANK and LOCAL_RANK" in call("clip", "--out", "runs", "--device", "cpu")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["vae", "--out", "runs"], f"choose from {', '.join(name.replace('_', '-') for name in (*STAGES, 'all'))}\n"),
        (["clip"], "Missing option '--out'"),
        (["clip", "--out", "runs", "--recipe", "stickers-tpu"], "stickers-cpu, stickers-gpu"),
        (["clip", "--out", "runs", "--recipe", "mine.toml"], "no recipe 'mine.toml'"),
        (["clip", "--out", "runs", "--steps", "-3"], "--steps must be at least 1"),
        (["clip", "--out", "runs", "--steps", "many"], "--steps"),
        (["decoder", "--out", "runs", "--init", "stickers", "--lora", "0"], "--lora must be at least 1"),
        (["decoder", "--out", "runs", "--lora", "8"], "--lora changes a model: name it by --init"),
        (["decoder", "--out", "runs", "--init", "stickers", "--lora", "8"], "no [data] table; give --data FOLDER"),
        (["upsampler", "--out", "runs", "--init", "stickers", "--lora", "8"], "only the prior and the decoder"),
        (["decoder", "--out", "runs", "--distill", "both", "--teacher", "stickers"], "from guidance, consistency"),
        (["decoder", "--out", "runs", "--distill", "guidance"], "name it by --teacher"),
        (["decoder", "--out", "runs", "--teacher", "stickers"], "--teacher belongs to --distill"),
        (["decoder", "--out", "runs", "--distill", "guidance", "--teacher", "stickers"], "also --data PROMPTS.txt"),
        (["clip", "--out", "runs", "--minutes", "nan"], "--minutes must be"),
        (["clip", "--out", "runs", "--minutes", "-1"], "--minutes must be"),
        (["clip", "--out", "runs", "--device", "gpu"], "choose from auto, cpu"),
        (["clip", "--out", "/dev/null/runs"], "cannot write into"),
        (["decoder", "--out", "runs", "--device", "cpu"], "run `unclip train clip` first"),
        (["prior", "--out", "runs", "--device", "cpu"], "run `unclip train clip` first"),
        (["clip", "--check", "--processes", "2"], "--check runs in one process"),
        (["clip", "--out", "runs", "--processes", "0"], "--processes must be at least 1"),
        (["clip", "--out", "runs", "--accumulate", "0"], "--accumulate must be at least 1"),
        (
            ["clip", "--out", "runs", "--device", "cpu", "--accumulate", "7"],
            "one process in 7 parts each cannot divide equally",
        ),
        (["clip", "--out", "runs", "--device", "cpu", "--dtype", "float16"], "training in float16 needs a GPU"),
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
    assert names == ["all", None, out]
    assert vars(options) == {
        "resume": True,
        "init": None,
        "lora": None,
        "distill": None,
        "teacher": None,
        "data": None,
        "prior": None,
        "image_encoder": None,
        "skip_bad": False,
        "device": "cpu",
        "dtype": "auto",
        "accumulation": 1,
        "shard": False,
        "minutes": 1.5,
        "steps": None,
        "quiet": True,
    }


def test_the_arguments_of_a_fine_tuning_reach_the_training(monkeypatch, tmp_path: Path):
    given = []
    monkeypatch.setattr(run, "train", lambda *arguments: given.append(arguments))
    words = "--init owner/model --lora 8 --data images --prior owner/prior --image-encoder ViT-L-14/openai"
    assert main(["train", "decoder", "--out", str(tmp_path / "runs"), *words.split(), "--dtype", "bfloat16"]) == 0
    [(*_, options)] = given
    found = {"init": "owner/model", "lora": 8, "data": "images", "prior": "owner/prior", "dtype": "bfloat16"}
    assert vars(options).items() >= {**found, "image_encoder": "ViT-L-14/openai"}.items()


def test_the_arguments_of_a_distillation_reach_the_training(monkeypatch, tmp_path: Path):
    given = []
    monkeypatch.setattr(run, "train", lambda *arguments: given.append(arguments))
    words = "--distill consistency --teacher owner/model --data prompts.txt"
    assert main(["train", "upsampler", "--out", str(tmp_path / "runs"), *words.split()]) == 0
    [(*_, options)] = given
    found = {"distill": "consistency", "teacher": "owner/model", "data": "prompts.txt", "init": None}
    assert vars(options).items() >= found.items()


def test_an_interrupt_ends_with_130(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(run, "train", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    assert main(["train", "clip", "--out", str(tmp_path / "runs")]) == 130
    assert capsys.readouterr().err == "unclip: interrupted\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch) -> Path:
    """A recipe for a folder of five images, two of which cannot be used and one of which is cut off."""
    monkeypatch.chdir(tmp_path)
    for n in range(5):
        Image.new("RGB", (40, 40), (50 * n, 9, 9)).save(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_text("an image")
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:50])
    (tmp_path / "mine.toml").write_text("[data]\nkind = 'folder'\npath = '.'\n[clip]\n[decoder]\n")
    return tmp_path


def test_a_check_lists_every_bad_file(mine: Path, capsys):
    words = ["train", "all", "--recipe", "mine.toml", "--check", "--device", "cpu"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert [line.removeprefix("cannot read ").partition(" ")[0] for line in out.splitlines()] == [
        "0.png",
        "1.txt:",
        "2.png",
    ]
    assert "unclip: note: .: 1 other files are not read: 1 .toml\n" in err
    last = err.splitlines()[-1]
    assert last.startswith("unclip: error: mine.toml [data]: 3 bad files (first: 0.png") and "--skip-bad" in last
    assert main([*words, "--skip-bad", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 3 and not captured.err
    assert main([*words, "--skip-bad"]) == 0
    assert "unclip: note: mine.toml [data]: 2 images\n" in capsys.readouterr().err
    assert sorted(path.name for path in mine.iterdir() if path.suffix not in (".png", ".txt")) == ["mine.toml"]


def test_a_check_needs_no_images_for_scenes(capsys):
    assert main(["train", "all", "--check"]) == 0
    captured = capsys.readouterr()
    assert not captured.out and all("scenes, made on the fly" in line for line in captured.err.splitlines())


def test_a_run_starts_with_the_list_of_bad_files(mine: Path, capsys):
    words = ["train", "all", "--recipe", "mine.toml", "--out", "runs", "--device", "cpu"]
    assert main([*words, "--quiet"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("unclip: error: mine.toml [data]: 2 bad files (first: 0.png ")
    assert main(words) == 2
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unclip: note: ")]
    assert any("0.png" in note for note in notes) and any("1.txt: not UTF-8" in note for note in notes)
    assert not (mine / "runs").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[decoder.model]\nblock_out_channels = [16, 31]", "mine.toml [decoder.model]: "),
        ("[prior.model]\nlayers = 3", "mine.toml [prior.model]: unknown key 'layers'"),
        ("[upsampler.task]\ncrop = 7", "mine.toml [upsampler.task]: crop = 7 should be a multiple of "),
        (
            "[upsampler.data]\nkind = 'folder'\npath = 'none'",
            "mine.toml [data] and [upsampler.data]: none: not a folder",
        ),
    ],
)
def test_every_stage_is_checked_before_the_first_trains(call, tmp_path: Path, text: str, says: str):
    (tmp_path / "mine.toml").write_text(f"[data]\nkind = 'scenes'\n[clip]\n{text}")
    assert says in call("all", "--recipe", "mine.toml", "--out", "runs", "--device", "cpu")
    assert says in call("all", "--recipe", "mine.toml", "--check", "--device", "cpu", "--quiet")
