"""Output folders behind URLs: the same folder as on a disk, whatever happens in between."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.batch.fake_pipeline import FakePipeline
from tests.batch.test_progress import CheckedPipeline, cats, file, run, small_blocks  # noqa: F401
from tests.batch.test_runner import entries, image_files
from unclip.batch import remote_lock, remote_storage
from unclip.batch.open_folder import open_folder
from unclip.errors import InputError, WriteError

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402


class BrokenFileSystem(MemoryFileSystem):
    """A store of objects that has only so much room, and that may refuse everything."""

    protocol = "broken"
    store, pseudo_dirs = {}, [""]
    room, refusal = 10**9, None

    def pipe_file(self, path, value, **options):
        if self.room < len(value):
            raise OSError(28, "No space left on device")
        super().pipe_file(path, value, **options)

    def exists(self, path, **options):
        if self.refusal is not None:
            raise self.refusal
        return super().exists(path, **options)

    def cat_file(self, path, **options):
        if self.refusal is not None:
            raise self.refusal
        return super().cat_file(path, **options)


fsspec.register_implementation("broken", BrokenFileSystem, clobber=True)


@pytest.fixture(params=["memory", "file", "broken"])
def url(request, tmp_path):
    """A URL with nothing behind it."""
    if request.param == "file":
        return f"file://{tmp_path}/there/run"
    BrokenFileSystem.store.clear()
    BrokenFileSystem.room, BrokenFileSystem.refusal = 10**9, None
    files = fsspec.filesystem(request.param)
    files.store.clear()
    return f"{request.param}://bucket/run"


def contents(url: str) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(url)
    return {path[len(root) + 1 :]: files.cat_file(path) for path in files.find(root)}


def images(url: str) -> dict[str, bytes]:
    return {name: data for name, data in contents(url).items() if name.endswith(".png")}


def lines(url: str) -> list[dict]:
    return [json.loads(line) for line in contents(url)["manifest.jsonl"].splitlines()]


def test_the_images_and_the_manifest_are_those_of_a_folder(file, url, tmp_path):  # noqa: F811
    assert run(file, url, CheckedPipeline(stop_after=12))[:2] == (16, 0)
    assert run(file, url, dry=True)[:2] == (6, 16)
    made, skipped, pipe, report = run(file, url)
    assert (made, skipped, report.notes) == (6, 16, []) and pipe.checked == cats(*range(16, 22))
    assert run(file, url)[2].checked == []
    run(file, tmp_path / "whole")
    assert images(url) == image_files(tmp_path / "whole")
    assert lines(url) == entries(tmp_path / "whole")
    state = {name for name in contents(url) if not name.endswith(".png")}
    assert state == {"manifest.jsonl", ".unclip/run.json", ".unclip/progress.json", ".unclip/bad-lines.jsonl"}


def test_cut_missing_and_changed_objects_are_made_again(file, url):  # noqa: F811
    run(file, url)
    before = images(url)
    names = sorted(before)
    files, root = fsspec.core.url_to_fs(url)
    files.rm_file(f"{root}/{names[2]}")
    files.pipe_file(f"{root}/{names[4]}", before[names[4]][:-9])  # as a store without whole objects leaves it
    made, skipped, _, report = run(file, url)
    assert (made, skipped) == (2, 20) and f"1 image changed since written ({names[4]})" in report.notes[0]
    assert images(url)[names[2]] == before[names[2]] and len(lines(url)) == 22
    changed = bytearray(before[names[6]])
    changed[-20] ^= 1
    files.pipe_file(f"{root}/{names[6]}", bytes(changed))
    assert run(file, url)[0] == 0 and run(file, url, verify=True)[0] == 1


def test_bad_lines_and_failures_are_listed_there(file, url):  # noqa: F811
    file.write_text("{a\ncat\nbad\n")
    assert run(file, url)[0] == 1
    assert [json.loads(line)["line"] for line in contents(url)["errors.jsonl"].splitlines()] == [1, 3]
    file.write_text("a\ncat\nc\n")
    assert run(file, url)[0] == 2 and "errors.jsonl" not in contents(url)


def test_parts_of_the_manifest_are_merged(file, url, monkeypatch):  # noqa: F811
    merged = []
    real = remote_storage.RemoteStorage.replaced
    monkeypatch.setattr(remote_storage, "MERGE", 5000)
    monkeypatch.setattr(remote_storage.RemoteStorage, "replaced", lambda self: merged.append(1) or real(self))
    run(file, url)
    assert len(merged) >= 3 and len(lines(url)) == 22


def test_killed_at_any_moment_and_resumed(file, tmp_path):  # noqa: F811
    file.write_text("".join(f"cat {i}\n" for i in range(12)))
    run(file, tmp_path / "whole", batch_size=2)
    killed = 0
    for attempt, calls in enumerate([(19, 34, 8), (47, 6)]):
        url = f"file://{tmp_path}/there-{attempt}"
        for call in calls:
            done = subprocess.run(
                [sys.executable, "-m", "tests.batch.fake_pipeline", str(file), url, "2", str(call), "session"],
                cwd=Path(__file__).parents[2],
                capture_output=True,
            )
            assert done.returncode in (0, -9), done.stderr.decode()
            killed += done.returncode == -9
        made, skipped, _, report = run(file, url, batch_size=2)
        assert made + skipped == 12 and skipped > 0 and report.notes == []
        assert images(url) == image_files(tmp_path / "whole")
        assert sorted(line["file"] for line in lines(url)) == sorted(images(url))
        assert not [name for name in contents(url) if "/tmp/" in name or "/parts/" in name]
    assert killed == 5


def test_a_run_that_ended_without_a_word_leaves_no_lock(url):
    files, root = fsspec.core.url_to_fs(url)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    now = time.time()
    for pid, host, beat, is_free in (
        (os.getpid(), platform.node(), now, False),
        (int(dead.stdout), platform.node(), now, True),
        (1, "elsewhere", now - 60, False),
        (1, "elsewhere", now - 130, True),
    ):
        files.makedirs(f"{root}/.unclip", exist_ok=True)
        files.pipe_file(f"{root}/.unclip/owner.json", json.dumps({"pid": pid, "host": host, "beat": beat}).encode())
        if is_free:
            with open_folder(url), pytest.raises(InputError, match=f"is in use by process {os.getpid()}"):
                open_folder(url).__enter__()
            assert ".unclip/owner.json" not in contents(url)
        else:
            with pytest.raises(InputError, match=f"is in use by process {pid} on {host}; wait for it"):
                open_folder(url).__enter__()


def test_a_run_whose_lock_was_taken_over_writes_nothing_more(file, monkeypatch):  # noqa: F811
    monkeypatch.setattr(remote_lock, "BEAT", 0.01)
    files = fsspec.filesystem("memory")
    files.store.clear()

    class Slow(FakePipeline):
        def generate_batch(self, requests, progress=None):
            files.pipe_file("/bucket/run/.unclip/owner.json", b'{"pid": 1, "host": "x", "token": "theirs"}')
            time.sleep(0.3)
            return super().generate_batch(requests, progress)

    with pytest.raises(WriteError, match="cannot write into 'memory://bucket/run' .another run has taken it over"):
        run(file, "memory://bucket/run", Slow())
    assert images("memory://bucket/run") == {}


def test_a_full_store_ends_the_run_which_can_be_resumed(file, monkeypatch):  # noqa: F811
    BrokenFileSystem.store.clear()
    with monkeypatch.context() as patch:

        class Filling(FakePipeline):
            def generate_batch(self, requests, progress=None):
                if len(self.generated) == 8:
                    patch.setattr(BrokenFileSystem, "room", 0)
                return super().generate_batch(requests, progress)

        with pytest.raises(WriteError, match="No space left on device.; make room, and run the same command again"):
            run(file, "broken://bucket/run", Filling())
    assert run(file, "broken://bucket/run")[:2] == (14, 8)


def test_what_cannot_be_used_is_one_clear_error(monkeypatch):
    class NoCredentialsError(Exception):
        pass

    monkeypatch.setitem(sys.modules, "s3fs", None)
    for url, problem in (
        ("s3://bucket/run", r"needs another package: pip install 'unclip\[s3\]'"),
        ("nope://bucket/run", "Protocol not known: nope; give a folder"),
    ):
        with pytest.raises(InputError, match=problem):
            open_folder(url).__enter__()
    for refusal in (NoCredentialsError("Unable to locate credentials"), PermissionError("Forbidden")):
        monkeypatch.setattr(BrokenFileSystem, "refusal", refusal)
        with pytest.raises(InputError, match=f"cannot be used: {refusal}; check the name, the network and the cred"):
            open_folder("broken://bucket/run").__enter__()
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match="needs fsspec: pip install fsspec"):
        open_folder("memory://x").__enter__()
