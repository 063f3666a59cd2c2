"""What a package index needs, and the Dockerfile. `.ci/run` builds the files and checks them."""

import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[1]
ADDRESS = "https://example.org/owner/unclip"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata_of(hooks, monkeypatch, address: str) -> dict:
    monkeypatch.setenv(hooks.VARIABLE, address)
    found: dict = {}
    hooks.CustomMetadataHook(str(ROOT), {}).update(found)
    return found


def test_links_of_the_readme_are_absolute_and_lead_to_files(hooks, monkeypatch):
    found = metadata_of(hooks, monkeypatch, f"{ADDRESS}/")
    text = found["readme"]["text"]
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", text)
    assert len(links) > 10 and sum(mark == "!" for mark, _ in links) == 2
    for mark, link in links:
        assert link.startswith("https://"), link
        if link.startswith(ADDRESS):
            kind, head, path = link.removeprefix(f"{ADDRESS}/").split("/", 2)
            assert (kind, head) == ("raw" if mark else "blob", "HEAD") and (ROOT / path.split("#")[0]).exists()
    assert f"git clone --depth 1 {ADDRESS} " in text
    assert set(found["urls"]) == {"Homepage", "Source", "Documentation", "Changelog", "Issues"}
    assert all(url.startswith(ADDRESS) for url in found["urls"].values())


def test_without_an_address_no_link_is_broken(hooks, monkeypatch):
    found = metadata_of(hooks, monkeypatch, "")
    assert found["urls"] == {}
    assert all("://" in link for link in re.findall(r"\]\(([^)\s]+)\)", found["readme"]["text"]))
    assert "![" not in found["readme"]["text"] and "Getting started continues" in found["readme"]["text"]


def test_what_an_index_shows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Typing :: Typed" in project["classifiers"] and (ROOT / "unclip" / "py.typed").is_file()
    versions = {one.rpartition(" ")[2] for one in project["classifiers"] if "Python :: 3." in one}
    assert project["requires-python"].removeprefix(">=") in versions
    assert not any(one.startswith("License ::") for one in project["classifiers"])  # refused beside `license`
    extras = {"parquet", "evaluate", "kandinsky", "lora", "serve", "shell", "train", "video", "test", "docs"}
    assert extras <= set(project["optional-dependencies"])


def test_files_are_smaller_than_an_index_allows():
    """The weights hardly compress, so their size is about that of the wheel and of the sdist."""
    parts = ("weights", "assets", "unclip", "tests", "docs", "examples")
    sizes = [path.stat().st_size for part in parts for path in (ROOT / part).rglob("*") if path.is_file()]
    assert sum(sizes) < 95e6


def test_the_dockerfile_copies_what_is_there():
    text = (ROOT / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied and set(copied) == let_in and all((ROOT / name).exists() for name in copied)
    assert re.search(r"^USER unclip$", text, re.MULTILINE)


def has_docker() -> bool:
    return shutil.which("docker") is not None and not subprocess.run(["docker", "info"], capture_output=True).returncode


@pytest.mark.skipif(not has_docker(), reason="needs docker")
def test_the_image_generates():
    subprocess.run(["docker", "build", "--quiet", "--tag", "unclip-test", "."], cwd=ROOT, check=True)
    command = ["docker", "run", "--rm", "unclip-test", "generate", "a cat", "--size", "64x64", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "out/a-cat-1.png  seed 1\n"
