"""Damage in an output folder, and lines that have moved: what is reported, kept and generated again."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.batch.fake_pipeline import FakePipeline
from tests.batch.test_runner import MODEL, entries, image_files
from unclip.batch.file_names import DEFAULT, NameTemplate
from unclip.batch.generation import Output
from unclip.batch.jobs import Settings
from unclip.batch.open_folder import open_folder, read_folder
from unclip.batch.prompt_file import prompt_file
from unclip.batch.run_record import run_seed
from unclip.batch.session import Grid, Session
from unclip.cli.batch_progress import BatchProgress
from unclip.errors import InputError


class Notes(BatchProgress):
    """A report that keeps the notes and the totals."""

    def __init__(self) -> None:
        super().__init__(as_json=False, quiet=True)
        self.notes: list[str] = []
        self.totals, self.planned = None, None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def end(self, totals, bad, errors) -> None:
        self.totals = totals

    def plan(self, plan) -> None:
        self.planned = plan


@pytest.fixture
def session(tmp_path):
    """session(lines, ...) runs a prompt file of these lines into out/, and gives (made, skipped, notes)."""
    out = tmp_path / "out"

    def run(lines: str, name: str = "p.txt", shard=(1, 1), seed: int | None = None, dry: bool = False, **options):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines.split(";")))
        report, template = Notes(), NameTemplate.parse(DEFAULT)
        verify = options.get("verify", False)
        with prompt_file(str(tmp_path / name)) as prompts:
            output = Output(prompts.name, template)
            one = Session(prompts=prompts, model=MODEL, output=output, report=report, **options)

            def settings() -> Settings:
                return Settings(seed=run_seed(out, 5 if seed is None else seed, MODEL)[0], name=template, shard=shard)

            if dry:
                with read_folder(out, verify=options.get("verify", False)) as folder:
                    one.dry_run(settings(), folder)
                return report.planned.images - report.planned.done, report.planned.done, report.notes
            with open_folder(out, verify=verify) as folder:
                one.run(settings(), folder, FakePipeline, 4)
        return report.totals.made, report.totals.skipped, report.notes

    return run


LINES = "a cat;a dog;a {red|blue} hen -- -n 3;a fox -- --seed 9;a cat"


def test_inserted_removed_and_sorted_lines_make_no_image_again(session, tmp_path):
    assert session(LINES)[:2] == (7, 0)
    before = image_files(tmp_path / "out")
    inserted = "a new one;a cat;a dog;a {red|blue} hen -- -n 3;another;a fox -- --seed 9;a cat"
    assert session(inserted, dry=True)[:2] == (2, 7)
    made, skipped, [note] = session(inserted)
    assert (made, skipped) == (2, 7)
    assert (
        note
        == f"7 images of lines that have moved in {tmp_path / 'p.txt'} are kept, with their names and seeds; "
        + ("--redo-moved makes new ones")
    )
    assert before.items() <= image_files(tmp_path / "out").items() and len(image_files(tmp_path / "out")) == 9
    assert session(inserted) == (0, 9, [])  # they have the keys of their new places
    lines = inserted.split(";")
    assert session(";".join(reversed(lines)))[:2] == (0, 9)
    made, skipped, notes = session(";".join(lines[1:]))
    assert (made, skipped) == (0, 8) and "asks for 1 image in" in notes[-1]
    found = {(entry["index"], entry["request"]["prompt"]) for entry in entries(tmp_path / "out")}
    assert {(0, "a cat"), (1, "a dog"), (4, "a fox"), (5, "a cat")} <= found


def test_moved_lines_can_be_made_again(session, tmp_path):
    session("a cat;a dog -- --seed 3")
    made, skipped, notes = session("new;a cat;a dog -- --seed 3", redo_moved=True)
    assert (made, skipped) == (3, 0) and notes[0].startswith("2 images of lines that have moved in ")
    assert len(image_files(tmp_path / "out")) == 5
    assert session("new;a cat;a dog -- --seed 3")[:2] == (0, 3)


def test_only_the_same_content_of_the_same_file_and_seed_is_taken_for_a_moved_line(session):
    session("a cat;a dog")
    assert session("a cat;a cat;a dog -- --steps 3")[:2] == (2, 1)
    assert session("x;y;z;a cat;a dog", name="other.txt")[:2] == (5, 0)  # another file has its own images
    assert session("a cat;a cat;a dog -- --steps 3", seed=6)[:2] == (3, 0)
    assert session("a cat;a cat;a dog -- --steps 3")[:2] == (0, 3)


def test_the_images_of_other_shards_are_not_free(session):
    same = ";".join(["a cat"] * 6)
    assert session(same, shard=(1, 2))[:2] == (3, 0)
    assert session(same, shard=(2, 2))[:2] == (3, 0)
    assert session(same)[:2] == (0, 6)


def test_damaged_lines_are_reported_and_kept(session, tmp_path):
    session(LINES)
    before, manifest = image_files(tmp_path / "out"), tmp_path / "out/manifest.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    lines[2], lines[4] = b'{"key": 3}\n', b"\xff\xfe\n"
    manifest.write_bytes(b"".join(lines).rstrip(b"\n") + b"\n\n")
    made, skipped, notes = session(LINES)
    assert (made, skipped) == (2, 5) and len(notes) == 1
    assert notes[0].startswith(
        f"2 lines of {manifest} cannot be read and moved to {tmp_path}/out/.unclip/damaged.jsonl"
    )
    assert (tmp_path / "out/.unclip/damaged.jsonl").read_bytes() == lines[2] + lines[4]
    assert before.items() <= image_files(tmp_path / "out").items()
    assert session(LINES) == (0, 7, [])
    manifest.write_bytes(manifest.read_bytes().rstrip(b"\n"))  # an editor's work, or a kill at the last byte
    assert session(LINES) == (0, 7, []) and manifest.read_bytes().endswith(b"}\n")


def flip(path: Path, keep_time: bool = False) -> bytes:
    """Change a byte of a file, which keeps its size; gives the new content."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    later = (before.st_atime_ns, before.st_mtime_ns if keep_time else before.st_mtime_ns + 10**10)
    os.utime(path, ns=later)
    return bytes(data)


def test_changed_images_are_reported_kept_and_made_again(session, tmp_path):
    session(LINES)
    paths = sorted((tmp_path / "out").glob("*.png"))
    original, changed = paths[0].read_bytes(), flip(paths[0])
    paths[1].write_bytes(b"short")
    made, skipped, notes = session(LINES)
    assert (made, skipped) == (2, 5)
    again = "kept as found, and generated again under other names"
    assert notes == [f"2 images changed since written ({paths[0].name}, {paths[1].name}): {again}"]
    assert paths[0].read_bytes() == changed and paths[1].read_bytes() == b"short"
    assert paths[0].with_name(f"{paths[0].stem}-2.png").read_bytes() == original
    assert session(LINES) == (0, 7, [])


def test_verify_finds_changes_that_keep_size_and_time(session, tmp_path):
    session(LINES)
    path = min((tmp_path / "out").glob("*.png"))
    flip(path, keep_time=True)
    assert session(LINES) == (0, 7, [])  # the cheap check does not read it
    assert session(LINES, dry=True, verify=True)[:2] == (1, 6)
    made, _, notes = session(LINES, verify=True)
    assert made == 1 and path.name in notes[0]


def test_verify_compares_the_pixels_of_older_manifests(session, tmp_path):
    session(LINES)
    manifest = tmp_path / "out/manifest.jsonl"
    old = [{name: value for name, value in entry.items() if name != "sha256"} for entry in entries(tmp_path / "out")]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in old))
    assert session(LINES, verify=True) == (0, 7, [])
    flip(min((tmp_path / "out").glob("*.png")))
    assert session(LINES, verify=True)[0] == 1


def test_a_copied_folder_is_checked_once_and_kept(session, tmp_path):
    session(LINES)
    shutil.move(tmp_path / "out", tmp_path / "there")
    shutil.copytree(tmp_path / "there", tmp_path / "out", copy_function=shutil.copyfile)
    assert session(LINES) == (0, 7, [])


def test_a_missing_manifest_is_reported(session, tmp_path):
    session("a cat;a dog")
    (tmp_path / "out/manifest.jsonl").unlink()
    before = image_files(tmp_path / "out")
    made, _, notes = session("a cat;a dog")
    manifest, again = tmp_path / "out/manifest.jsonl", "kept as found, and generated again under other names"
    assert notes == [f"{manifest} is missing, so the prompts of 2 images in the folder are unknown: {again}"]
    assert made == 2
    assert before.items() <= image_files(tmp_path / "out").items()


def test_a_grid_goes_without_a_damaged_image(session, tmp_path):
    session("a cat;a dog;a hen")
    path = min((tmp_path / "out").glob("*.png"))
    entry = path.stat()
    path.write_bytes(b"x" * entry.st_size)
    os.utime(path, ns=(entry.st_atime_ns, entry.st_mtime_ns))  # so that only the grid reads it
    made, _, notes = session("a cat;a dog;a hen", grid=Grid(labels=True))
    assert made == 0 and notes == [f"{str(path)!r} cannot be read; the grid goes without it"]
    assert (tmp_path / "out/grid.png").is_file()


def test_links_do_not_lead_out_of_the_folder(session, tmp_path):
    session("a cat")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/x.tmp").write_text("mine")
    shutil.rmtree(tmp_path / "out/.unclip/tmp")
    (tmp_path / "out/.unclip/tmp").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="is a link"):
        session("a cat")
    assert (tmp_path / "mine/x.tmp").read_text() == "mine"
    with (
        pytest.raises(InputError, match="among the files of another output folder"),
        open_folder(tmp_path / "out/.unclip/images"),
    ):
        pass
