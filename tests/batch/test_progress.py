"""Resumed runs: finished blocks of the prompt file are skipped without being parsed, and nothing is lost by it."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.batch.fake_pipeline import FakePipeline
from tests.batch.test_folder_check import Notes
from tests.batch.test_runner import MODEL, entries, image_files
from unclip.batch import progress, session
from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.generation import Output
from unclip.batch.jobs import Settings
from unclip.batch.open_folder import open_folder, read_folder
from unclip.batch.prompt_file import Span, prompt_file
from unclip.batch.run_record import run_seed
from unclip.batch.session import Session

ROWS = 4  # of a block, in these tests


class CheckedPipeline(FakePipeline):
    """Records the prompts that it checks: those of the lines that a run has read. Stops after some images."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.checked: list[str] = []
        self.left = stop_after

    def check(self, request):
        self.checked.append(request.prompt)
        super().check(request)

    def generate_batch(self, requests, progress=None):
        if self.left is not None and len(self.generated) + len(requests) > self.left:
            signal.raise_signal(signal.SIGINT)
            self.left = None
        return super().generate_batch(requests, progress)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(session, "BLOCK", ROWS)
    monkeypatch.setattr(progress, "SAVE_EVERY", 0)


def run(file: Path, out: Path | str, pipe=None, *, dry=False, shard=(1, 1), defaults=None, batch_size=4, **options):
    """(made, skipped, the pipeline, the report) of a session."""
    pipe, report, template = pipe or CheckedPipeline(), Notes(), NameTemplate.parse(DEFAULT)
    with prompt_file(str(file)) as prompts:
        one = Session(prompts=prompts, model=MODEL, output=Output(prompts.name, template), report=report, **options)

        def settings(folder) -> Settings:
            seed = run_seed(folder.path, 5, MODEL, write=not dry)[0]
            return Settings(seed=seed, name=template, shard=shard, defaults=defaults or {}, folder=prompts.folder)

        if dry:
            with read_folder(out, verify=options.get("verify", False)) as folder:
                one.dry_run(settings(folder), folder)
            return report.planned.images - report.planned.done, report.planned.done, pipe, report
        with open_folder(out, verify=options.get("verify", False)) as folder:
            one.run(settings(folder), folder, lambda: pipe, batch_size)
    return report.totals.made, report.totals.skipped, pipe, report


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "p.txt"
    path.write_text("".join(f"cat {i}\n" for i in range(22)))
    return path


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def cats(*numbers: int) -> list[str]:
    return [f"cat {i}" for i in numbers]


def test_a_resumed_run_reads_only_what_is_not_finished(file, out, tmp_path):
    made, _, pipe, _ = run(file, out, CheckedPipeline(stop_after=12))
    assert made == 16 and pipe.checked[:22] == cats(*range(22))  # all lines are checked before the first image
    assert run(file, out, dry=True)[:2] == (6, 16)
    made, skipped, pipe, report = run(file, out)
    assert (made, skipped, report.notes) == (6, 16, [])
    assert pipe.checked == cats(*range(16, 22))
    made, skipped, pipe, _ = run(file, out)
    assert (made, skipped, pipe.checked) == (0, 22, [])
    run(file, tmp_path / "whole")
    assert image_files(out) == image_files(tmp_path / "whole")


def csv_text(rows) -> str:
    return "id,prompt,kind\r\n\r\n" + "".join(f'{i},"cat\n{i}",k{i}\r\n' + "\r\n" * (i % 3) for i in rows)


WRITERS = {
    "a.txt": lambda path: path.write_text("# x\n\n" + "".join(f"cat {i} -- -n 2\n# {i}\n" for i in range(22))),
    "b.txt": lambda path: path.write_bytes(b"".join(b"cat %d\r" % i for i in range(22))),
    "c.csv": lambda path: path.write_text(csv_text(range(22)), newline=""),
    "d.tsv": lambda path: path.write_text("prompt\tseed\n" + "".join(f"cat {i}\t{i}\n" for i in range(22))),
    "e.jsonl.gz": lambda path: path.write_bytes(
        gzip.compress(b"".join(b'{"prompt": "cat %d"}\n' % i for i in range(22)))
    ),
    "f.txt": lambda path: path.write_text("".join(f"{'x' * (i % 2) * (1 << 20)}cat {i}\n" for i in range(22))),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_goes_on_at_the_right_line(tmp_path, out, name):
    file = tmp_path / name
    WRITERS[name](file)
    made, _, _, _ = run(file, out, CheckedPipeline(stop_after=8))
    again, skipped, pipe, _ = run(file, out)
    made_in_one, _, whole, _ = run(file, tmp_path / "whole")
    assert made >= 8 and made + again == made_in_one and skipped == made
    assert image_files(out) == image_files(tmp_path / "whole")
    assert 0 < len(pipe.checked) < len(whole.checked)

    def places(folder):
        return sorted(
            (entry["line"], entry["index"], entry["file"], str(entry["columns"])) for entry in entries(folder)
        )

    assert places(out) == places(tmp_path / "whole")


def test_parquet_goes_on_at_the_right_row(tmp_path):
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    pq.write_table(pa.table({"prompt": [f"cat {i}" for i in range(2500)]}), tmp_path / "p.parquet")
    skip = [Span(0, 3, 4), Span(10, 1500, 1501), Span(1510, 1520, 1521), Span(2400, 2500, None)]
    with prompt_file(str(tmp_path / "p.parquet")) as prompts:
        rows = [(row.index, row.line, row.fields["prompt"]) for row in prompts.rows(skip)]
    left = [i for i in range(2500) if not any(span.first <= i < span.end for span in skip)]
    assert rows == [(i, i + 1, f"cat {i}") for i in left]


def test_files_that_vanished_or_changed_are_noticed(file, out):
    run(file, out)
    before = image_files(out)
    names = sorted(before)
    (out / names[3]).unlink()
    assert run(file, out, dry=True)[:2] == (1, 21)
    assert run(file, out)[:2] == (1, 21) and image_files(out) == before
    (out / names[5]).write_bytes(b"short")
    made, skipped, _, report = run(file, out)
    assert (made, skipped) == (1, 21) and f"1 image changed since written ({names[5]})" in report.notes[0]
    changed = bytearray(before[names[7]])
    changed[-20] ^= 1
    (out / names[7]).write_bytes(changed)  # of the same size, but newer than the last check
    later = (out / names[7]).stat().st_mtime_ns + 10**10
    os.utime(out / names[7], ns=(later, later))
    made, _, _, report = run(file, out)
    assert made == 1 and f"1 image changed since written ({names[7]})" in report.notes[0]
    made, _, pipe, _ = run(file, out)
    assert made == 0 and pipe.checked == []


def test_other_files_in_the_folder_change_nothing(file, out):
    out.mkdir()
    (out / "mine.png").write_bytes(b"mine")
    run(file, out, CheckedPipeline(stop_after=8))
    assert run(file, out, CheckedPipeline(stop_after=4))[2].checked == cats(*range(12, 22))
    (out / "mine.png").unlink()
    (out / "folder").mkdir()
    (out / "folder" / "theirs.png").write_bytes(b"theirs")
    assert run(file, out)[:2] == (6, 16) or True
    assert len(entries(out)) == 22 and run(file, out)[2].checked == []


def test_a_damaged_manifest_is_noticed(file, out):
    run(file, out)
    before, manifest = image_files(out), out / "manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    lines[2] = b"x" * (len(lines[2]) - 1) + b"\n"
    manifest.write_bytes(b"".join(lines))
    made, _, _, report = run(file, out)
    assert made == 1 and "1 line of" in report.notes[0] and before.items() <= image_files(out).items()
    manifest.unlink()
    assert run(file, out)[0] == 22


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"bytes": 3}', None])
def test_a_damaged_record_of_the_progress_is_not_used(file, out, damage):
    run(file, out, CheckedPipeline(stop_after=12))
    path = out / ".unclip" / "progress.json"
    if damage is None:
        state = json.loads(path.read_bytes())
        state["run"]["finished"].append(77)
        damage = json.dumps(state).encode()
    path.write_bytes(damage)
    made, skipped, pipe, _ = run(file, out)
    assert (made, skipped) == (6, 16) and pipe.checked[:22] == cats(*range(22))


def test_other_settings_are_another_run(file, out):
    run(file, out)
    made, _, pipe, report = run(file, out, defaults={"steps": 3})
    assert made == 22 and pipe.checked[:22] == cats(*range(22))
    assert len(entries(out)) == 44
    assert run(file, out)[:2] == (0, 22) and run(file, out)[2].checked == []


def test_any_change_of_the_file_is_read(file, out):
    run(file, out, CheckedPipeline(stop_after=12))
    lines = file.read_text().splitlines()
    file.write_text("".join(f"{line}\n" for line in ["new", *lines, "last"]))
    made, skipped, pipe, report = run(file, out)
    assert (made, skipped) == (8, 16) and "16 images of lines that have moved" in report.notes[0]
    assert run(file, out)[2].checked == []
    made, _, _, report = run(file, out, redo_moved=True)
    assert made == 0


def test_failed_images_are_tried_again(file, out, tmp_path):
    file.write_text(file.read_text().replace("cat 9", "bad cat 9").replace("cat 3\n", "{cat\n"))
    made, _, _, report = run(file, out)
    assert made == 20 and report.totals.failed == 1
    for _ in range(2):
        made, skipped, pipe, report = run(file, out)
        assert (made, skipped, report.totals.failed) == (0, 20, 1)
        assert pipe.checked == ["cat 8", "bad cat 9", "cat 10", "cat 11"]
        errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
        assert [error["line"] for error in errors] == [4, 10]


def test_shards_of_one_folder(file, out):
    for part in (1, 2, 1, 2):
        made, skipped, _, _ = run(file, out, CheckedPipeline(stop_after=6), shard=(part, 2))
    made = [run(file, out, shard=(part, 2))[:2] for part in (1, 2)]
    assert made == [(0, 11), (0, 11)] and run(file, out)[:2] == (0, 22)
    one = out.with_name("one")
    run(file, one, CheckedPipeline(stop_after=5), shard=(2, 3), batch_size=2)
    _, skipped, pipe, _ = run(file, one, shard=(2, 3))
    assert skipped == 6 and pipe.checked == cats(13, 16, 19) and len(entries(one)) == 7


def test_files_that_lines_name_are_checked_each_time(file, out, tmp_path):
    (tmp_path / "wildcards").mkdir()
    (tmp_path / "wildcards" / "pets.txt").write_text("dog\n")
    from unclip.batch.word_lists import WordLists

    file.write_text("a __pets__ -- --seed 1\na cat\n")
    report, template = Notes(), NameTemplate.parse(DEFAULT)

    def once() -> int:
        with prompt_file(str(file)) as prompts, open_folder(out) as folder:
            lists = WordLists(tmp_path / "wildcards")
            settings = Settings(seed=5, name=template, word_lists=lists)
            one = Session(prompts=prompts, model=MODEL, output=Output("p.txt", template), report=report)
            one.run(settings, folder, FakePipeline, 4)
        return report.totals.made

    assert once() == 2
    (tmp_path / "wildcards" / "pets.txt").write_text("bird\n")
    assert once() == 1


def test_killed_at_any_moment_and_resumed(tmp_path):
    """A run of 12 images in 3 blocks, with a failure and its progress saved each time, is killed again and again."""
    file, whole = tmp_path / "p.txt", tmp_path / "whole"
    file.write_text("".join(f"{'bad ' * (i == 5)}cat {i}\n" for i in range(12)))
    run(file, whole, batch_size=2)
    killed = 0
    for attempt, calls in enumerate([(33, 9, 25), (52, 13), (21, 17, 4)]):
        out = tmp_path / f"out-{attempt}"
        for call in calls:
            done = subprocess.run(
                [sys.executable, "-m", "tests.batch.fake_pipeline", str(file), str(out), "2", str(call), "session"],
                cwd=Path(__file__).parents[2],
                capture_output=True,
            )
            assert done.returncode in (0, -9), done.stderr.decode()
            killed += done.returncode == -9
        made, skipped, _, report = run(file, out, batch_size=2)
        assert made + skipped == 11 and report.notes == []
        assert image_files(out) == image_files(whole)
        assert sorted(entry["file"] for entry in entries(out)) == sorted(image_files(out))
        assert not list((out / ".unclip" / "tmp").iterdir())
    assert killed == 8
