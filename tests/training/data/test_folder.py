"""Folders of images: captions from text files and from metadata.jsonl, and errors."""

import json
from pathlib import Path

import pytest

from tests.training.data.helpers import encoded, flat, folder_dataset, pixel
from unclip.errors import DataError


def test_images_without_a_caption_and_captions_without_an_image_are_counted(folder: Path):
    (folder / "0.txt").unlink()
    (folder / "2.txt").write_text(" \n")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        folder_dataset(folder, 4, 0)
    message = str(caught.value)
    assert "2 without a caption (first: 0.png)" in message
    assert "1 without an image (first: notes.txt)" in message


def metadata(root: Path, *rows: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "metadata.jsonl").write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return root


def test_metadata_jsonl(tmp_path: Path):
    root = metadata(
        tmp_path,
        {"file_name": "a.png", "text": "an a"},
        "",
        {"file_name": "./sub/b.webp", "caption": ["a b", "bee"]},
    )
    (root / "sub").mkdir()
    (root / "a.png").write_bytes(encoded(flat(10)))
    (root / "sub" / "b.webp").write_bytes(encoded(flat(200), "WEBP", lossless=True))
    data = folder_dataset(root, 4, 0)
    samples = [data[i] for i in range(20)]
    assert {(pixel(image, 0, 0)[0], caption) for image, caption in samples} == {
        (10, "an a"),
        (200, "a b"),
        (200, "bee"),
    }


@pytest.mark.parametrize("name", ["../secret.png", "sub/../../secret.png", "{root}/secret.png", "C:\\x.png"])
def test_metadata_cannot_leave_the_folder(tmp_path: Path, name: str):
    (tmp_path / "secret.png").write_bytes(encoded(flat(0)))
    root = metadata(tmp_path / "data", {"file_name": name.format(root=tmp_path), "text": "x"})
    (root / "a.png").write_bytes(encoded(flat(0)))
    with pytest.raises(DataError, match=r"metadata.jsonl, line 1: .*leaves the folder"):
        folder_dataset(root, 4, 0)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{nonsense", "line 1: not a JSON object"),
        ('"text"', "line 1: not a JSON object"),
        ({"text": "x"}, 'line 1: needs "file_name"'),
        ({"file_name": "a.png"}, 'line 1: needs "text" or "caption"'),
        ({"file_name": "a.png", "text": 3}, 'line 1: needs "text" or "caption"'),
        ({"file_name": "a.png", "text": ""}, r"1 without a caption \(first: a.png\)"),
        ({"file_name": "b.png", "text": "x"}, r"1 without an image \(first: b.png\)"),
    ],
)
def test_bad_metadata_is_named(tmp_path: Path, row: object, words: str):
    root = metadata(tmp_path, row)
    (root / "a.png").write_bytes(encoded(flat(0)))
    with pytest.raises(DataError, match=words):
        folder_dataset(root, 4, 0)


def test_folders_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(DataError, match="not a folder"):
        folder_dataset(tmp_path / "none", 4, 0)
    with pytest.raises(DataError, match="no images"):
        folder_dataset(tmp_path, 4, 0)
    (tmp_path / "a.png").write_bytes(encoded(flat(0)))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="a.txt: not UTF-8"):
        folder_dataset(tmp_path, 4, 0)
    (tmp_path / "a.txt").write_text("a")
    data = folder_dataset(tmp_path, 4, 0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="a.png: cannot be read"):
        data[0]
