"""The same ten images as a folder and as tar shards."""

import json
from pathlib import Path

import pytest

from tests.training.data.helpers import encoded, flat, folder_dataset, shard_dataset, write_tar
from unclip.training.data.stored import CaptionedImages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten flat images; image n has shade 20 n and the caption "n"."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for n in range(10):
        stem = root / ("sub" if n % 2 else ".") / f"{n}"
        stem.with_suffix(".png").write_bytes(encoded(flat(20 * n)))
        stem.with_suffix(".txt").write_text(f"{n}\n")
    return root


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Two shards of five flat images; image n has shade 20 n and the caption "n", in .txt or in .json."""
    for shard in range(2):
        members = {}
        for n in range(5 * shard, 5 * shard + 5):
            members[f"./a.b/{n:03d}.png"] = encoded(flat(20 * n))
            if n % 2:
                members[f"./a.b/{n:03d}.json"] = json.dumps({"caption": str(n), "width": 8}).encode()
            else:
                members[f"./a.b/{n:03d}.txt"] = str(n).encode()
            members[f"./a.b/{n:03d}.cls"] = b"7"
        write_tar(tmp_path / f"s-{shard:03d}.tar", members)
    return str(tmp_path / "s-{000..001}.tar")


@pytest.fixture(params=["folder", "shards"])
def stored(request: pytest.FixtureRequest, folder: Path, shards: str) -> CaptionedImages:
    """The images from each of the two."""
    return folder_dataset(folder, 4, 3) if request.param == "folder" else shard_dataset(shards, 4, 3)
