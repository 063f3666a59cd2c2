"""Where images go, and the progress bar."""

import dataclasses
import errno
import io
import os
import re
import stat
import sys
import threading

import pytest
from PIL import Image

from unclip.batch.file_names import slug
from unclip.benchmark.throughput import format_throughput
from unclip.cli.output import find_target
from unclip.cli.progress import Progress
from unclip.errors import InputError, WriteError
from unclip.images import metadata
from unclip.images.result import Result, record
from unclip.requests.request import Request
from unclip.system.files import write_new


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A Penguin, on a pink background!", "a-penguin-on-a-pink-background"),
        ("../../etc/passwd", "etc-passwd"),
        ("crème brûlée", "creme-brulee"),
        ("ペンギン", "image"),
        ("a\0b\nc", "a-b-c"),
        ("word " * 40, "word-word-word-word-word-word-word-word-word-word-word-word"),
    ],
)
def test_slug(prompt, name):
    assert slug(prompt) == name
    assert len(name) <= 60


def test_images_in_a_folder_never_overwrite(result: Result, tmp_path):
    place = find_target(str(tmp_path / "deep" / "out"), images=3)
    assert not (tmp_path / "deep").exists()  # only a check so far
    same = dataclasses.replace(result, request=Request(prompt="a cat", seed=7))
    assert [place.save(same).name for _ in range(3)] == ["a-cat-7.png", "a-cat-7-2.png", "a-cat-7-3.png"]
    assert len(list(place.path.iterdir())) == 3


def test_one_image_to_a_file_replaces_it(result: Result, tmp_path):
    place = find_target(str(tmp_path / "cat.PNG"), images=1)
    place.save(result)
    assert place.save(result) == tmp_path / "cat.PNG"
    assert metadata.read(tmp_path / "cat.PNG")["seed"] == 7


def test_a_folder_may_have_any_name(result: Result, tmp_path):
    (tmp_path / "odd.png").mkdir()
    assert find_target(str(tmp_path / "odd.png"), images=2).save(result).parent == tmp_path / "odd.png"
    with pytest.raises(InputError, match="PNG"):
        find_target(str(tmp_path / "odd.gif"), images=1)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "webp"])
def test_a_file_has_the_format_of_its_suffix(result: Result, tmp_path, suffix):
    path = find_target(str(tmp_path / f"cat.{suffix}"), images=1).save(result)
    with Image.open(path) as image:
        assert image.format == metadata.FORMATS[suffix.lower()]
    assert metadata.read(path) == record(result)
    place = find_target(str(tmp_path / "folder"), images=2, format="webp")
    assert place.save(result).suffix == ".webp"


def test_writers_at_the_same_moment_keep_all_files(tmp_path):
    def write(data: bytes) -> None:
        write_new(tmp_path / "x.png", data)

    threads = [threading.Thread(target=write, args=(bytes([i]),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.read_bytes()[0] for path in tmp_path.iterdir()) == list(range(8))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_file_has_the_permissions_of_any_other(result: Result, tmp_path):
    (tmp_path / "other").touch()
    mode = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert stat.S_IMODE(result.save(tmp_path / "x.png").stat().st_mode) == mode


def test_progress_shows_a_bar_for_each_stage_of_each_batch():
    drawn = io.StringIO()
    progress = Progress(enabled=True, file=drawn)
    for stage in ("prior", "decoder", "prior"):
        for done in range(3):
            progress(stage, done, 2)
    progress.close()
    assert "prior:   0%" in drawn.getvalue() and "decoder:   0%" in drawn.getvalue()
    silent = io.StringIO()
    Progress(enabled=False, file=silent)("prior", 1, 2)
    assert silent.getvalue() == ""


def test_bench_format_throughput():
    report = {
        "machine": "a computer",
        "model": "stickers",
        "device": "cpu",
        "dtype": "auto",
        "batch_size": 16,
        "first_picture_s": 6.25,
        "first_picture_peak_mib": None,
        "images_per_s": {"64x64": 4.5, "256x256": 1.0},
        "peak_mib": 900.2,
    }
    lines = format_throughput(report).splitlines()
    assert "cold start to first image  6.25 s" in lines
    assert lines[3].endswith("unknown")
    assert lines[4].split(maxsplit=3)[-1] == "4.50 images/s"
    assert lines[-1].endswith("900 MiB")


def test_a_full_disk_is_one_line_with_the_folder(result: Result, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for place in (find_target(str(tmp_path / "out"), 2), find_target(str(tmp_path / "x.png"), 1)):
        where = re.escape(str(tmp_path))
        with pytest.raises(WriteError, match=f"cannot write into '{where}.*No space left on device.*make room"):
            place.save(result)
