"""Hub models, from a local server. Each run is a process of its own, which reads the hub's address at start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save_file

from tests.hub_server import COMMIT, Hub, serve
from unclip.checkpoints.hub import find_cached, find_damaged_files, is_hub_id, snapshot_identity
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.verify import check_checkpoint

WEIGHTS = "text_proj/model.safetensors"


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path) -> Iterator[Hub]:
    """A hub with the tiny model and files that must not be downloaded."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "served"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    (folder / "prior" / "pytorch_model.bin").write_bytes(b"never")
    (folder / "prior" / "model.fp16.safetensors").write_bytes(b"never")
    with serve(Hub("someone/tiny", folder)) as served:
        yield served


@pytest.fixture
def run(hub: Hub, tmp_path: Path):
    """A function that runs `unclip ARGUMENTS` or a program, with the hub's cache in the test's folder."""

    def run(*arguments: str, program: str | None = None, **variables: str) -> subprocess.CompletedProcess:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"NO_PROXY": "*", "no_proxy": "*", **variables}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
            if name not in variables:
                env.pop(name, None)
        command = ["-c", program] if program else ["-m", "unclip", *arguments]
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=env, cwd=Path(__file__).parents[2]
        )

    return run


def error_of(done: subprocess.CompletedProcess) -> str:
    """The error line of a run that ended with exit code 2."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("unclip: error: "))


def test_a_model_is_downloaded_once_verified_and_then_used_offline(run, hub: Hub, tmp_path: Path) -> None:
    done = run("models", "download", "someone/tiny")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.split("  revision ")[0])
    assert done.stdout.endswith(f"  revision {COMMIT}\n")
    assert snapshot_identity(folder) == ("someone/tiny", COMMIT)
    served = [file for file in hub.files() if not file.endswith((".bin", ".fp16.safetensors"))]
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == served
    assert find_damaged_files(folder) == []

    hub.requests.clear()
    program = (
        "from unclip import Unclip; from unclip.cli.main import main;"
        "p = Unclip.from_pretrained('someone/tiny', 'cpu', 'float32');"
        "[r] = p.generate('a cat', seed=1, size=16); print(r.model, r.revision);"
        "print(main(['models', 'check', 'someone/tiny']))"
    )
    lines = run(program=program).stdout.splitlines()
    assert lines[0] == f"someone/tiny {COMMIT}"
    assert "ok     hashes              match the hub" in lines
    assert lines[-1] == "0"
    assert run("models", "show", f"someone/tiny@{COMMIT}", HF_HUB_OFFLINE="1").returncode == 0
    assert f"someone/tiny@{COMMIT}  16x16, 32x32" in run("models", "list").stdout
    assert hub.requests == []

    blob = (folder / WEIGHTS).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert list(check_checkpoint(folder))[-1] == ("hashes", f"wrong: {WEIGHTS}", False)


def test_a_broken_download_resumes(run, hub: Hub) -> None:
    # Its library writes 10 MB at a time.
    save_file({"zeros": np.zeros(12 << 20, np.uint8)}, hub.folder / "prior" / "large.safetensors")
    hub.broken = {"prior/large.safetensors": 11 << 20}
    done = run("models", "download", "someone/tiny")
    assert done.returncode == 0, done.stderr
    assert hub.ranges("GET", "large.safetensors") == [None, f"bytes={10 << 20}-"]


def test_only_damaged_files_are_downloaded_again(run, hub: Hub) -> None:
    hub.forged = {WEIGHTS}
    done = run("models", "download", "someone/tiny")
    message = error_of(done)
    assert f"{WEIGHTS} of someone/tiny does not have its hash on the hub; the file was removed" in message
    done = run("models", "list")
    assert f"someone/tiny@{COMMIT}  incomplete: text_proj/model.safetensors is missing; `unclip models" in done.stdout
    done = run("models", "show", "someone/tiny")
    assert "get it with `unclip models download someone/tiny`" in error_of(done)

    hub.forged.clear()
    hub.requests.clear()
    assert run("models", "download", "someone/tiny").returncode == 0
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert [path.split("/resolve/")[1].partition("/")[2] for path in fetched] == [WEIGHTS]


def test_missing_models_and_files(run, hub: Hub) -> None:
    message = error_of(run("models", "download", "someone/else"))
    assert message == "unclip: error: cannot download someone/else from the hub: it does not exist, or it is private"
    message = error_of(run("models", "download", "someone/tiny", HF_HUB_OFFLINE="1"))
    assert "it is not in the cache, and HF_HUB_OFFLINE forbids the network" in message
    assert "is not a hub id; give owner/name" in error_of(run("models", "download", "stickers"))
    (hub.folder / WEIGHTS).unlink()
    message = error_of(run("models", "download", "someone/tiny"))
    assert message.endswith(
        "someone/tiny on the hub is not a checkpoint in safetensors: text_proj/model.safetensors is missing"
    )


def test_an_unreachable_hub(run) -> None:
    message = error_of(run("models", "download", "someone/tiny", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "the hub cannot be reached, and the model is not in the cache" in message


@pytest.mark.parametrize("name", ["a/b", "kakaobrain/karlo-v1-alpha", "a/b@main", f"a/b@{COMMIT}", "A_1/b.c-d"])
def test_valid_hub_ids(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["", "a", "/a", "a/", "a/b/c", "../a", "a/..", ".", "a/b@", "a b/c", "a/b\n", "nul\0/a"]
)
def test_invalid_hub_ids(name: str) -> None:
    assert not is_hub_id(name)


def test_only_cache_folders_have_a_snapshot_identity(tmp_path: Path) -> None:
    assert snapshot_identity(tmp_path) is None
    assert snapshot_identity(tmp_path / "snapshots" / COMMIT) is None
    assert snapshot_identity(tmp_path / "models--a--b" / "snapshots" / "main") is None
    assert snapshot_identity(tmp_path / "models--a--b-c" / "snapshots" / COMMIT) == ("a/b-c", COMMIT)
    assert find_cached("no-one/nothing-of-this-name") is None


def test_unneeded_files_may_be_missing_from_the_cache(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Partly(LocalEntryNotFoundError):
        snapshot_path = str(tiny_model)

    def refuse(*_: object, **__: object) -> str:
        raise Partly("README.md is missing")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    assert find_checkpoint("someone/tiny") == tiny_model
