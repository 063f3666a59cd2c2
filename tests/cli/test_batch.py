"""`unclip batch`: its output, exit codes and interrupts; the images are tested in tests/batch."""

import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from PIL import Image

from tests.batch.fake_pipeline import FakePipeline
from unclip.batch import previews
from unclip.batch.previews import Previews
from unclip.cli import batch_progress, model_options
from unclip.cli.batch_progress import BatchProgress
from unclip.cli.main import main
from unclip.cli.progress import Progress
from unclip.errors import InputError

INDEX = {"name": "fake", "stages": {"decoder": {"size": [8, 8]}, "upsampler": {"size": [16, 16]}}}


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> FakePipeline:
    """A stand-in for the pipeline, its model "m", and p.txt, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model_index.json").write_text(json.dumps(INDEX))
    (tmp_path / "p.txt").write_text("a cat\na dog -- -n 2\n")
    pipeline = FakePipeline()
    pipeline.opened = []

    def from_pretrained(name, progress, **options):
        progress("loading", 1, 1)
        pipeline.opened.append((name, options))
        return pipeline

    unclip = SimpleNamespace(from_pretrained=from_pretrained)
    monkeypatch.setitem(sys.modules, "unclip.pipeline", SimpleNamespace(Unclip=unclip))
    return pipeline


@pytest.fixture
def call(pipeline, capsys):
    """call(*arguments) -> (exit code, output, errors) of `unclip batch`, with the model "m"."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["batch", *arguments, "--model", "m"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def manifest(out: str = "out") -> list[dict]:
    return [json.loads(line) for line in Path(out, "manifest.jsonl").read_text().splitlines()]


def test_a_second_run_makes_nothing(call, pipeline):
    code, out, err = call("p.txt", "--seed", "3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == [f"out/{entry['file']}" for entry in manifest()]
    assert "3 images made" in err and "unclip: note: seed 3" in err
    code, out, err = call("p.txt", "--seed", "3")
    assert (code, out) == (0, "") and "0 images made, 3 already there" in err
    assert len(pipeline.opened) == 1  # nothing to do: no model is loaded


def test_a_random_seed_is_kept_for_the_resume(call):
    call("p.txt", "--quiet")
    call("p.txt", "--quiet")
    assert len(manifest()) == 3
    call("p.txt", "--quiet", "-o", "other")
    assert {entry["seed"] for entry in manifest()} != {entry["seed"] for entry in manifest("other")}


def test_options_are_defaults_for_the_lines(call, pipeline):
    Path("p.jsonl").write_text('{"prompt": "a", "steps": 9}\n{"prompt": "b"}\n')
    options = [
        "--steps",
        "3",
        "-n",
        "2",
        "--guidance",
        "0",
        "--negative-prompt",
        "x",
        "--size",
        "8",
        "--set",
        "prior-best-of=5",
    ]
    assert call("p.jsonl", *options, "--device", "cpu", "--dtype", "float32")[0] == 0
    opened = {"device": "cpu", "dtype": "float32", "memory": "auto", "image_encoder": None, "prior": None, "lora": ()}
    assert pipeline.opened == [("m", opened)]
    requests = [entry["request"] for entry in manifest()]
    assert sorted(request["steps"] for request in requests) == [3, 3, 9, 9]
    assert {(r["guidance"], r["negative_prompt"], r["size"], r["prior_best_of"]) for r in requests} == {
        (0.0, "x", "8x8", 5)
    }


def test_bad_lines_are_skipped_and_reported(call):
    Path("p.csv").write_text("prompt,seed,Kind\na cat,1,x\na dog,minus,y\n{a,2,z\nrefused,3,w\n")
    code, _, err = call("p.csv")
    assert code == 1
    assert "p.csv:3: seed must be a whole number" in err and "p.csv:4: prompt has a { that is never closed" in err
    assert "p.csv:5: prompt is refused; write another one" in err  # by the model
    assert "columns carried into the manifest: Kind" in err and "3 bad lines (see out/errors.jsonl)" in err
    errors = [json.loads(line) for line in Path("out/errors.jsonl").read_text().splitlines()]
    assert [(e["file"], e["line"], e["field"]) for e in errors] == [
        ("p.csv", 3, "seed"), ("p.csv", 4, "prompt"), ("p.csv", 5, "prompt")
    ]  # fmt: skip
    assert [(entry["line"], entry["columns"]) for entry in manifest()] == [(2, {"Kind": "x"})]


def test_strict_makes_nothing_if_a_line_is_bad(call, pipeline):
    Path("p.txt").write_text("a cat\n{a\n")
    code, out, err = call("p.txt", "--strict")
    assert (code, out) == (2, "") and "p.txt:2: " in err and "nothing was made" in err
    assert pipeline.opened == []
    Path("p.txt").write_text("a cat\nrefused\n")
    assert call("p.txt", "--strict")[0] == 2 and pipeline.batches == []


def test_many_bad_lines_do_not_flood_the_screen(call):
    Path("p.txt").write_text("{a\n" * 50)
    code, _, err = call("p.txt")
    assert code == 1 and err.count("p.txt:") == 20 and "30 more bad lines; all are in out/errors.jsonl" in err
    assert len(Path("out/errors.jsonl").read_text().splitlines()) == 50


def test_dry_run_prints_the_plan_and_writes_nothing(call, pipeline):
    before = sorted(path.name for path in Path().iterdir())
    Path("p.txt").write_text("a cat -- --size 8\na {red|blue} dog -- -n 2\n")
    code, out, err = call("p.txt", "--dry-run", "--all-combinations")
    assert (code, err) == (0, "")
    assert "images  5\n" in out and "size    8x8: 1\n" in out and "size    16x16: 4\n" in out
    assert "time    unknown" in out and "disk    about " in out
    assert sorted(path.name for path in Path().iterdir()) == before and pipeline.opened == []
    call("p.txt", "--quiet")
    code, out, _ = call("p.txt", "--dry-run", "--json")
    [plan] = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and plan["event"] == "plan" and (plan["images"], plan["to_make"], plan["seconds"]) == (3, 0, 0)
    with Path("p.txt").open("a") as more:
        more.write("a hen -- -n 3\n")
    code, out, _ = call("p.txt", "--dry-run", "--json")
    plan = json.loads(out)
    assert (plan["images"], plan["to_make"]) == (6, 3)
    assert "images  6, of which 3 are done\n" in call("p.txt", "--dry-run")[1]
    assert plan["seconds"] == pytest.approx(1.5)
    Path("p.txt").write_text("{a\n")
    assert call("p.txt", "--dry-run")[0] == 1
    assert call("p.txt", "--dry-run", "--strict")[0] == 2


def test_the_bundled_model_is_estimated_without_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a cat\n" * 100)
    assert main(["batch", "p.txt", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "size    256x256: 100\n" in out and "time    unknown" in out and "disk    about " in out


def test_json_events(call):
    Path("p.txt").write_text("a cat -- --id one\nbad\n{a\n")
    code, out, _ = call("p.txt", "--json", "--seed", "4")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [event.pop("event") for event in events] == ["bad_line", "start", "image", "failure", "end"]
    assert events[0]["line"] == 3 and events[1] == {"images": 2, "to_make": 2, "done": 0, "seed": 4}
    assert events[2]["id"] == "one" and events[2]["file"].startswith("out/00000-a-cat-")
    assert events[3]["line"] == 2
    assert events[4].pop("seconds") >= 0
    assert events[4] == {"made": 1, "skipped": 0, "failed": 1, "bad_lines": 1, "stopped": False}


def test_standard_input_and_shards(call, monkeypatch):
    for part in ("1/2", "2/2"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"prompt\na\nb\nc\n"))))
        assert call("-", "--input-format", "csv", "--shard", part, "-o", "o" + part[0], "--seed", "1")[0] == 0
    assert [entry["request"]["prompt"] for entry in manifest("o1") + manifest("o2")] == ["a", "c", "b"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.txt"], "cannot read 'missing.txt'"),
        (["m"], "cannot read 'm'"),
        (["p.txt", "--name", "../{seed}"], "--name"),
        (["p.txt", "--name", "same"], "the same for every image"),
        (["p.txt", "--format", "gif"], "--format 'gif' is unknown"),
        (["p.txt", "--shard", "3/2"], "--shard '3/2'"),
        (["p.txt", "--batch-size", "0"], "--batch-size"),
        (["p.txt", "--steps", "0"], "steps must be"),
        (["p.txt", "--seed", "-1"], "seed must be"),
        (["p.txt", "--set", "prior_best_of"], "write FIELD=VALUE"),
        (["p.txt", "--set", "prior_best=3"], "did you mean 'prior_best_of'"),
        (["p.txt", "--set", "seed=3"], "each line has its own"),
        (["p.txt", "--set", "steps=3", "--steps", "4"], "given twice"),
        (["p.txt", "--set", "sampler=foo"], "sampler 'foo' is unknown"),
        (["p.txt", "-o", "p.txt"], "is a file"),
        (["p.txt", "--device", "gpu"], "choose from auto"),
        (["p.txt", "--input-format", "xml"], "--input-format 'xml'"),
        (["empty.txt"], "holds no prompts"),
    ],
)
def test_a_mistake_is_one_line(call, pipeline, arguments, says):
    Path("empty.txt").write_text("# nothing\n")
    code, out, err = call(*arguments, "--quiet")
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    assert pipeline.opened == [] and Path("p.txt").read_text() == "a cat\na dog -- -n 2\n"


def test_lines_that_ask_for_too_much_are_bad_and_the_others_are_made(call, pipeline):
    lines = [
        {"prompt": "{a|b}" * 15_000},
        {"prompt": "a cat"},
        {"prompt": "{a|b}" * 16, "n": 100_000},
        {"prompt": "a " + "{b|" * 13_000},
        {"prompt": "{red|blue} dog"},
    ]
    Path("p.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    start = time.process_time()
    code, _, err = call("p.jsonl", "--all-combinations")
    assert code == 1 and time.process_time() - start < 10
    assert [entry["request"]["prompt"] for entry in manifest()] == ["a cat", "red dog", "blue dog"]
    assert "p.jsonl:1: prompt has more than 100,000 combinations" in err
    assert "p.jsonl:3: prompt has 65,536 combinations of 100,000 images" in err and "3 bad lines" in err
    assert "0 images made, 3 already there" in call("p.jsonl", "--all-combinations")[2]


def test_a_choice_that_a_request_refuses_fails_alone(call, pipeline):
    Path("p.jsonl").write_text('{"prompt": "{a cat|b.gif}", "n": 6, "seed": 4}\n{"prompt": "a dog"}\n')
    code, _, err = call("p.jsonl")
    made = [entry["request"]["prompt"] for entry in manifest()]
    assert code == 1 and set(made) == {"a cat", "a dog"} and "prompt 'b.gif' ends like the name of an image" in err


def test_text_of_other_tools_is_reported_in_the_check(call):
    Path("p.txt").write_text("a cat --seed 7 -n 2\n// no\n(a cat:1.3)\na dog\n__x__\n(a:2)\n")
    for options in (["--dry-run"], ["--strict"]):
        code, _, err = call("p.txt", *options)
        assert code in (1, 2) and "p.txt:1: --seed is an option without ' -- ' before it" in err
        assert "p.txt:2: the line begins with //" in err
        assert "p.txt:3: prompt has a weight, '(a cat:1.3)', and weights are not read: leave it out" in err
        assert "p.txt:5: prompt names __x__, a word list; write x.txt into a folder wildcards" in err
    assert not Path("out/manifest.jsonl").exists() or manifest() == []


def test_word_lists_beside_the_file_or_in_a_folder(call):
    for folder, word in (("wildcards", "cat"), ("mine", "owl")):
        Path(folder).mkdir()
        Path(folder, "animals.txt").write_text(f"{word}\n")
    Path("p.txt").write_text("a __animals__ -- --seed 1\n")
    assert call("p.txt")[0] == 0 and [entry["request"]["prompt"] for entry in manifest()] == ["a cat"]
    assert call("p.txt", "--wildcards", "mine", "-o", "2")[1].endswith("2/00000-a-owl-1.png  seed 1\n")
    assert call("p.txt", "--no-wildcards", "-o", "3")[1].endswith("3/00000-a-animals-1.png  seed 1\n")
    code, _, err = call("p.txt", "--wildcards", "p.txt", "-o", "4")
    assert code == 2 and "--wildcards 'p.txt' is not a folder" in err and not Path("4").exists()


def test_columns_of_other_tools_are_read_and_reported(call):
    Path("p.csv").write_text("Prompt,Width,Height,CFG Scale,Model\na cat,16,16,3,x\na dog,16,,,x\n")
    code, _, err = call("p.csv")
    [entry] = manifest()
    assert (entry["request"]["size"], entry["request"]["guidance"], entry["columns"]) == ("16x16", 3.0, {"Model": "x"})
    assert code == 1 and "p.csv:3: width is only one side of the size; give width and height" in err
    assert "note: 'width' and 'height' are read as size" in err and "note: 'cfg_scale' is read as guidance" in err
    assert "note: column 'Model' changes nothing; use the option --model" in err
    assert call("p.csv", "--set", "cfg_scale=3")[2].endswith("not a field of a request; did you mean 'guidance'?\n")


def test_a_url_in_place_of_a_folder(call, tmp_path):
    pytest.importorskip("fsspec")
    url = f"file://{tmp_path}/there"
    Path("p.txt").write_text("a cat\na dog -- -n 2\n{a\n")
    assert "images  3\n" in call("p.txt", "-o", url, "--dry-run")[1] and not Path("there").exists()
    code, out, err = call("p.txt", "-o", url, "--seed", "3")
    names = [line.split()[0] for line in out.splitlines()]
    assert code == 1 and names == [f"{url}/{entry['file']}" for entry in manifest("there")]
    assert f"3 images made in 0 s, 1 bad line (see {url}/errors.jsonl)" in err
    assert "0 images made, 3 already there" in call("p.txt", "-o", url)[2]  # with the seed of the first run
    for option in ("--grid", "--preview", "--open"):
        code, out, err = call("p.txt", "-o", url, option)
        assert (code, out) == (2, "") and f"{option} needs a folder of this machine" in err
    assert call("p.txt", "-o", "nope://x")[2].startswith("unclip: error: -o 'nope://x': Protocol not known: nope")


def test_the_first_interrupt_finishes_the_batch_at_hand(call, pipeline):
    real = pipeline.generate_batch

    def generate_batch(*arguments):
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    pipeline.generate_batch = generate_batch
    code, out, err = call("p.txt", "--batch-size", "1")
    assert code == 130 and len(out.splitlines()) == 1
    assert "finishing the current images" in err and "the same command again resumes it" in err
    pipeline.generate_batch = real
    assert call("p.txt", "--batch-size", "1")[0] == 0 and len(manifest()) == 3


def test_the_second_interrupt_stops_at_once(call, pipeline):
    def generate_batch(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    pipeline.generate_batch = generate_batch
    code, out, err = call("p.txt")
    assert (code, out) == (130, "") and "resumes it" in err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_progress_lines_without_a_terminal(call, monkeypatch):
    monkeypatch.setattr(batch_progress, "INTERVAL", 0)
    _, _, err = call("p.txt", "--batch-size", "1")
    assert "unclip: 2/3 images, " in err and " images/s, " in err


def test_a_grid_has_the_images_in_the_order_of_the_file(call):
    Path("p.txt").write_text("a -- --size 16\nb\nc -- --size 16\n")
    assert call("p.txt", "--quiet", "--grid", "--labels")[0] == 0
    with Image.open("out/grid.png") as grid, Image.open(next(Path("out").glob("00002-c-*"))) as third:
        assert grid.size == (36, 16 + 14 + 4 + 16 + 14)
        assert grid.getpixel((8, 42)) == third.getpixel((0, 0))
    Path("out/grid.png").unlink()
    code, out, _ = call("p.txt", "--grid", "--json")
    assert code == 0 and json.loads(out.splitlines()[-1]) == {"event": "grid", "file": "out/grid.png"}


def test_a_grid_replaces_only_an_earlier_grid(call):
    Path("out").mkdir()
    Path("out/grid.png").write_bytes(b"a stranger's")
    assert call("p.txt", "--quiet", "--grid")[0] == 0
    with Image.open("out/grid-2.png") as grid:
        size = grid.size
    Path("p.txt").write_text("a cat\na dog -- -n 2\n" + "a hen\n" * 5)
    assert call("p.txt", "--quiet", "--grid")[0] == 0
    with Image.open("out/grid-2.png") as grid:
        assert grid.size != size
    assert Path("out/grid.png").read_bytes() == b"a stranger's" and not Path("out/grid-3.png").exists()


def test_notes_on_the_run_are_printed_however_many_notes_the_images_have(capsys, result):
    progress = BatchProgress(as_json=False, quiet=False)
    for k in range(9):
        progress.say(f"checked {k} lines")
    for k in range(9):
        progress.image(f"{k}.png", {"seed": k, "notes": [f"of picture {k}"]})
    progress.note("the disk is small")
    err = capsys.readouterr().err
    assert "of picture 4" in err and "of picture 5" not in err and err.count("more notes are in the manifest") == 1
    assert "note: the disk is small" in err and "checked 8 lines" in err


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_a_pipe_is_read_once(call, tmp_path):
    os.mkfifo("pipe")
    lines = "".join(f"cat {i}\n" for i in range(40))
    writer = threading.Thread(target=lambda: Path("pipe").write_text(lines), daemon=True)
    writer.start()
    code, out, _ = call("pipe", "--dry-run")
    writer.join()
    assert code == 0 and out.startswith("images  40\n")


def test_too_large_a_grid_is_refused_before_the_first_image(call, pipeline):
    Path("p.txt").write_text("a -- -n 100000\n" * 5)
    for options in ([], ["--dry-run"]):
        code, out, err = call("p.txt", "--grid", "--quiet", *options)
        assert (code, out) == (2, "") and "--grid of 500,000 images" in err
    assert pipeline.opened == [] and not list(Path("out").glob("*.png"))
    assert call("p.txt", "--labels", "--quiet")[2] == "unclip: error: --labels are part of the grid; give --grid too\n"


def test_the_result_is_opened_on_request(call, monkeypatch):
    shown = []
    monkeypatch.setattr(typer, "launch", lambda path: shown.append(path) or len(shown) - 1)
    assert call("p.txt", "--open", "--quiet")[0] == 0
    code, _, err = call("p.txt", "--open", "--quiet", "--grid")
    assert shown == ["out", "out/grid.png"]
    assert code == 0 and err == "unclip: note: cannot open out/grid.png on this machine\n"


def test_control_characters_are_not_printed(capsys):
    progress = BatchProgress(as_json=False, quiet=False)
    progress.note("a \x1b[31mred\r\ncat\x07")
    assert capsys.readouterr().err == "unclip: note: a  [31mred  cat \n"


def test_an_invalid_default_is_refused_at_once():
    from unclip.cli.assignments import checked_defaults

    assert checked_defaults({"steps": None, "n": 2}, ["mode=generate", "guidance=2"]) == {
        "n": 2, "mode": "generate", "guidance": 2.0
    }  # fmt: skip
    with pytest.raises(InputError):
        checked_defaults({}, ["mode=generate", "stepz=2"])
    # lines may have modes of their own, and a setting may be set again
    assert checked_defaults({}, ["resample=4", "prior_best_of=4", "prior_best_of=2"]) == {
        "resample": 4, "prior_best_of": 2
    }  # fmt: skip
    for given, more in (({}, ["mode=bogus"]), ({"n": 2}, ["n=3"])):
        with pytest.raises(InputError):
            checked_defaults(given, more)


@pytest.mark.parametrize("first", [False, True])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(call, monkeypatch, first):
    def full(_: int) -> None:
        known = Path("out/manifest.jsonl")
        if first or known.exists() and known.stat().st_size:  # else only when the first image is recorded
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", full)
        code, out, err = call("p.txt", "--quiet")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "cannot write into 'out' (No space left on device); make room, and run the same command again" in err
    assert call("p.txt", "--quiet")[0] == 0 and len(manifest()) == 3


def test_previews_of_a_batch(tiny_model, tmp_path):
    prompts, out = tmp_path / "prompts.txt", tmp_path / "out"
    prompts.write_text("a cat -- --seed 5\na dog -- --seed 9\na fox -- --seed 7 --size 16x16\n", encoding="utf-8")
    drawing = ["--model", str(tiny_model), "--steps", "2", "--upsampler-steps", "1", "--preview"]
    assert main(["batch", str(prompts), *drawing, "-o", str(out)]) == 0
    steps = ["001-decoder", "002-decoder", "003-upsampler"]
    large = [f"{picture}-{step}.png" for picture in ("0001-5", "0002-9") for step in steps]
    names = [path.name for path in sorted((out / "previews").iterdir())]
    assert names == [*large, "0003-7-001-decoder.png", "0003-7-002-decoder.png"]
    assert main(["batch", str(prompts), *drawing, "-o", str(out)]) == 0  # nothing is left to make or to preview
    assert not (out / "previews-2").exists()


def test_a_full_disk_during_a_preview_ends_the_run(call, monkeypatch):
    def full(path: Path, data: bytes) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(previews, "write_atomic", full)
    code, _, err = call("p.txt", "--preview")
    assert code == 1 and err.splitlines()[-1].startswith(
        "unclip: error: cannot write into 'out/previews' (No space left"
    )
    assert not manifest() and not Path("out/errors.jsonl").exists()
    monkeypatch.undo()


def test_previews_of_a_repeated_batch_overwrite_nothing(tmp_path):
    image, told = Image.new("RGB", (8, 8)), []
    previews = Previews(tmp_path / "previews", lambda *step: told.append(step))
    previews.see("decoder", [image, image], [1, 2])
    previews("decoder", 1, 2)  # and then the memory is full: one image at a time
    for seed in (1, 2):
        for step in (1, 2):
            previews.see("decoder", [image], [seed])
            previews("decoder", step, 2)
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    again = [f"{picture}-00{step}-decoder.png" for picture in ("0003-1", "0004-2") for step in (1, 2)]
    assert names == ["0001-1-001-decoder.png", "0002-2-001-decoder.png", *again]
    assert told == [("decoder", 1, 2), *[("decoder", step, 2) for _ in range(2) for step in (1, 2)]]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_interrupted_then_killed_then_resumed(tiny_model, tmp_path, capsys):
    """The program as processes on a real, tiny model: in the end every image equals that of an uninterrupted run."""
    file, out = tmp_path / "p.txt", tmp_path / "out"
    file.write_text("".join(f"a red cat {i}\n" for i in range(40)))
    arguments = ["batch", str(file), "--model", str(tiny_model), "--seed", "1", "--size", "16", "--batch-size", "2"]
    arguments += ["--dtype", "float32", "--device", "cpu"]

    def start() -> subprocess.Popen:
        before = done()
        process = subprocess.Popen(
            [sys.executable, "-m", "unclip", *arguments, "-o", str(out)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        while done() < before + 3 and process.poll() is None:
            time.sleep(0.005)
        return process

    def done() -> int:
        return len(list(out.glob("*.png")))

    process = start()
    assert main([*arguments, "-o", str(out)]) == 2  # one run at a time
    assert f"in use by process {process.pid} on " in capsys.readouterr().err
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130 and "the same command again resumes it" in err and "Traceback" not in err
    assert 3 <= done() < 40
    process = start()
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and done() < 40

    assert main([*arguments, "-o", str(out)]) == 0
    assert main([*arguments, "-o", str(tmp_path / "whole")]) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.png")}
    assert len(whole) == 40 and {path.name: path.read_bytes() for path in out.glob("*.png")} == whole
    keys = [json.loads(line)["key"] for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 40


def test_the_program_ends_with_2_for_a_bad_file_and_1_for_a_bad_line(tmp_path):
    (tmp_path / "p.txt").write_text("{a\n")
    for file, code, says in (("none.txt", 2, "cannot read 'none.txt'"), ("p.txt", 1, "p.txt:1: prompt has a {")):
        program = [sys.executable, "-m", "unclip", "batch", file]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr
        assert done.stdout == ""


def test_no_bar_with_quiet_or_without_a_terminal(call, monkeypatch):
    shown = []
    monkeypatch.setattr(model_options, "Progress", lambda enabled: shown.append(enabled) or Progress(False))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert call("p.txt", "--quiet")[0] == 0
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert call("p.txt", "-o", "other")[0] == 0
    assert shown == [False, False]
