"""Hub models, from a local server. Each run is a process of its own, which reads the hub's address at start."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import save_file

from tests.hub_server import COMMIT, Hub, serve
from tests.published_kandinsky import SIZES_2_2, kandinsky_decoder, kandinsky_prior
from unclip.checkpoints.hub import find_cached, parse_hub_id
from unclip.checkpoints.hub_files import find_damaged_files, snapshot_identity
from unclip.checkpoints.locate import find_checkpoint
from unclip.checkpoints.verify import check_checkpoint
from unclip.errors import CheckpointError

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
def environment(hub: Hub, tmp_path: Path):
    """A function: variables -> options of a process that has the hub's cache in the test's folder."""

    def environment(**variables: str) -> dict:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"NO_PROXY": "*", "no_proxy": "*", **variables}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
            if name not in variables:
                env.pop(name, None)
        return {"env": env, "cwd": Path(__file__).parents[2]}

    return environment


@pytest.fixture
def run(environment):
    """A function that runs `unclip ARGUMENTS` or a program."""

    def run(*arguments: str, program: str | None = None, **variables: str) -> subprocess.CompletedProcess:
        command = ["-c", program] if program else ["-m", "unclip", *arguments]
        return subprocess.run([sys.executable, *command], capture_output=True, text=True, **environment(**variables))

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
    assert "ok     hashes                  match the hub" in lines
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


# ---- a hostile hub


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder: the content of files, the targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[key] = os.readlink(path)
        elif path.is_file():
            found[key] = path.read_bytes()
    return found


@pytest.fixture
def surroundings(tmp_path: Path):
    """A function that returns all files outside the hub's cache; one of them is a file of the user."""
    (tmp_path / "mine.json").write_text("{}")
    return lambda: {key: value for key, value in tree(tmp_path).items() if not key.startswith(("hub/", "served/"))}


UP = "../" * 4  # from the cache's folder of blobs to the test's folder


HOSTILE = [
    {"etags": {"README.md": f"{UP}new.md"}},
    {"etags": {"README.md": f"{UP}mine.json"}},  # exists: a link to it would be made, and checked
    {"etags": {WEIGHTS: f"{UP}weights"}},
    {"etags": {"README.md": "readme"}},
    {"etags": {"README.md": ".."}},
    {"commit": f"{UP}commit"},
    {"commit": "main"},
    {"sha": f"{UP}commit"},
    {"sha": "abc"},
    {"listed": [f"{UP}{UP}listed.json"]},
    {"listed": ["../" + COMMIT[::-1] + "/listed.json"]},
    {"listed": ["prior/../../listed.json"]},
    {"listed": ["/tmp/unclip-listed.json"]},
    {"listed": ["..\\listed.json"]},
    {"listed": ["C:/listed.json"]},
]
DOWNLOAD_FOR_EACH_LINE = """
import sys
from huggingface_hub import constants
from unclip.checkpoints.hub import download
from unclip.errors import CheckpointError
for cache in sys.stdin:
    constants.HF_HUB_CACHE = cache.strip()
    try:
        print(download("someone/tiny"), flush=True)
    except CheckpointError as error:
        print(error, flush=True)
"""


def test_a_hostile_hub_cannot_lead_out_of_the_cache(environment, hub: Hub, tmp_path: Path, surroundings) -> None:
    before = surroundings()
    command = [sys.executable, "-c", DOWNLOAD_FOR_EACH_LINE]
    # One process, because importing the hub's library takes longer than all downloads.
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True, **environment()) as child:
        for number, change in enumerate(HOSTILE):
            honest = {field: getattr(hub, field) for field in change}
            for field, value in change.items():
                setattr(hub, field, value)
            child.stdin.write(f"{tmp_path / 'hub' / str(number)}\n")
            child.stdin.flush()
            message = child.stdout.readline()
            assert message.startswith("cannot download someone/tiny from the hub: it "), (change, message)
            assert message.endswith("could lead out of the cache; use another hub\n") and len(message) < 300
            assert surroundings() == before, change
            for field, value in honest.items():
                setattr(hub, field, value)
        child.stdin.close()
    assert not Path("/tmp/unclip-listed.json").exists()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "/someone/tiny/resolve/main/model_index.json"])
def test_a_redirect_to_another_file_is_not_intact(run, hub: Hub, surroundings, tmp_path: Path, target: str) -> None:
    before = surroundings()
    hub.redirects = {WEIGHTS: target}
    message = error_of(run("models", "download", "someone/tiny"))
    assert "cannot download" in message or "does not have its hash" in message
    assert surroundings() == before
    assert b"root:" not in b"".join(value for value in tree(tmp_path / "hub").values() if isinstance(value, bytes))
    hub.redirects = {}
    assert run("models", "download", "someone/tiny").returncode == 0


def test_downloads_keep_the_http_client_of_an_application(run, hub: Hub) -> None:
    program = (
        "from huggingface_hub import get_session, set_client_factory; from huggingface_hub.utils import _http\n"
        "made = []\n"
        "def make(): made.append(_http.default_client_factory()); return made[-1]\n"
        "set_client_factory(make)\n"
        "from unclip.checkpoints.hub import download; download('someone/tiny')\n"
        "count = len(made); print(count); assert get_session() is made[-1] and len(made) == count + 1\n"
        "assert not get_session().event_hooks['response']"
    )
    done = run(program=program)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


@pytest.fixture
def cached(run, hub: Hub) -> Path:
    """The folder of the downloaded model in the cache."""
    done = run("models", "download", "someone/tiny")
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split("  revision ")[0])


def test_links_that_lead_out_of_the_cache_are_not_followed(run, cached: Path, tmp_path: Path) -> None:
    link, mine = cached / WEIGHTS, tmp_path / "mine"
    mine.write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(mine)
    assert find_damaged_files(cached) == [link]
    assert f"{link} leads out of the hub's cache" in error_of(run("models", "show", "someone/tiny"))
    with pytest.raises(CheckpointError, match="leads out of the hub's cache"):
        find_checkpoint(cached)
    assert "someone/tiny does not have its hash on the hub" in error_of(run("models", "download", "someone/tiny"))
    assert mine.is_file() and not link.is_symlink()  # only the link was removed
    assert run("models", "download", "someone/tiny").returncode == 0
    assert find_damaged_files(cached) == []


def test_only_names_that_are_hashes_are_intact(cached: Path) -> None:
    link = cached / WEIGHTS
    blob = link.resolve()
    for name in ("weights", blob.name.upper(), blob.name[:40], f"{blob.name}.1"):
        other = shutil.copy(blob, blob.with_name(name))
        link.unlink()
        link.symlink_to(os.path.relpath(other, link.parent))
        assert find_damaged_files(cached) == [link]


def test_a_blob_in_the_store_that_repositories_share_is_intact(cached: Path) -> None:
    blob = (cached / WEIGHTS).resolve()
    shared = cached.parents[2] / "blobs" / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert find_damaged_files(cached) == []
    assert find_checkpoint(cached) == cached
    shared.write_bytes(b"another")
    assert find_damaged_files(cached) == [cached / WEIGHTS]


def test_without_symbolic_links_files_are_compared_with_the_list_of_the_hub(run, hub: Hub) -> None:
    off = {"HF_HUB_DISABLE_SYMLINKS": "1"}
    hub.forged = {WEIGHTS}
    assert f"{WEIGHTS} of someone/tiny does not have its hash" in error_of(
        run("models", "download", "someone/tiny", **off)
    )
    hub.forged.clear()
    done = run("models", "download", "someone/tiny", **off)
    assert done.returncode == 0, done.stderr


# ---- names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, name) for name in ("a/b", "kakaobrain/karlo-v1-alpha", "a/b@main", f"a/b@{COMMIT}", "A_1/b.c-d")),
        ("https://huggingface.co/a/b", "a/b"),
        ("http://www.huggingface.co/a/b/", "a/b"),
        ("huggingface.co/a/b?library=diffusers#files", "a/b"),
        ("https://hf.co/a/b/tree/main", "a/b"),
        (f"https://huggingface.co/a/b/tree/{COMMIT}", f"a/b@{COMMIT}"),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1", "a/b@refs/pr/1"),
        ("https://huggingface.co/a/b/blob/v1.0/prior/config.json", "a/b@v1.0"),
        ("https://huggingface.co/a/b/resolve/main/model_index.json?download=true", "a/b"),
        ("https://huggingface.co/a/b/discussions/3", "a/b"),
        (Path("https://huggingface.co/a/b"), "a/b"),
    ],
)
def test_valid_hub_ids(name: str | Path, expected: str) -> None:
    assert parse_hub_id(str(name)) == expected


@pytest.mark.parametrize(
    "name",
    ["", "a", "/a", "a/", "a/b/c", "../a", "a/..", ".", "a/b@", "a b/c", "a/b\n", "nul\0/a", "a/b@/etc/x", "a/b@../x"]
    + ["a/b@x//y", "a/b@x/..", "a/b@x/", "a--b/c", "https://example.com/a/b", "file:///a/b"],
)
def test_invalid_hub_ids(name: str) -> None:
    assert parse_hub_id(name) is None


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("datasets/a/b", "is not the page of a model on the hub; give owner/name"),
        ("a", "is not the page of a model on the hub; give owner/name"),
        ("a/b/tree/main/prior", "is a part of a model on the hub; give a/b"),
        ("a/b/tree/..%2F..%2Fx", "is not the page of a model on the hub; give owner/name"),
        ("a/" + "b" * 5000, "is not the page of a model on the hub; give owner/name"),
    ],
)
def test_urls_of_other_pages_are_refused(path: str, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(f"https://huggingface.co/{path}")
    assert message in str(caught.value) and len(str(caught.value)) < 200


def test_a_url_of_the_hub_names_its_model(run, hub: Hub, cached: Path) -> None:
    assert run("models", "download", f"{hub.url}/someone/tiny").stdout.startswith(f"{cached}  revision")
    assert f"revision    {COMMIT}" in run("models", "show", f"{hub.url}/someone/tiny/tree/main").stdout


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


@pytest.fixture
def two_repositories(tmp_path: Path) -> Iterator[Hub]:
    """A hub with a tiny Kandinsky 2.2, whose prior has a repository of its own."""
    size, served = SIZES_2_2["one"], tmp_path / "served"
    (tmp_path / "tokenizer").mkdir()
    kandinsky_prior(size, tmp_path / "tokenizer").save_pretrained(served / "prior")
    kandinsky_decoder(size).save_pretrained(served / "decoder")
    prior = Hub("kandinsky-community/kandinsky-2-2-prior", served / "prior")
    with serve(Hub("someone/kandinsky", served / "decoder", others=[prior])) as hub:
        yield hub


@pytest.mark.parametrize("layer", ["down_blocks.1.attentions.0.to_q", "transformer_blocks.1.attn1.to_q"])
def test_a_lora_of_another_family_is_refused_before_the_weights_are_downloaded(
    two_repositories: Hub, tmp_path: Path, layer: str
) -> None:
    hub = two_repositories
    width = 32 if layer.startswith("down") else 16  # of the U-Net's second level, of the prior
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "*", "no_proxy": "*"}
    for values, code in ((width + 1, 2), (width, 0)):
        pair = {"lora_A.weight": np.ones((2, values), "float32"), "lora_B.weight": np.ones((values, 2), "float32")}
        save_file({f"{layer}.{name}": tensor for name, tensor in pair.items()}, tmp_path / "style.safetensors")
        command = ["generate", "a cat", "--model", "someone/kandinsky", "--lora", str(tmp_path / "style.safetensors")]
        command += ["--steps", "1", "--prior-steps", "1", "-o", str(tmp_path / "out")]
        done = subprocess.run([sys.executable, "-m", "unclip", *command], capture_output=True, text=True, env=env)
        assert done.returncode == code, done.stderr
        weights = [each for each in (hub, *hub.others) if each.ranges("GET", ".safetensors")]
        assert bool(weights) == (code == 0)
        if code == 2:
            assert "of another family or size" in error_of(done)
