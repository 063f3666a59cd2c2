"""Folders of images: captions from text files and from metadata.jsonl, and errors."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.training.data.helpers import encoded, flat, folder_dataset, pixel
from unclip.errors import DataError
from unclip.training.data.folder import list_folder
from unclip.training.data.stored import CaptionedImages


def listed(root: Path) -> dict[str, list[str]]:
    """The captions of a folder's images, by their file name within it."""
    listing = list_folder(root)
    assert not listing.faults
    return {sample.name.removeprefix(f"{root}/"): sample.captions() for sample in listing.samples}


def add(root: Path, name: str, caption: str | None = None, suffix: str = ".txt") -> None:
    """Write an image, and a caption beside it."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(flat(9)))
    if caption is not None:
        path.with_suffix(suffix).write_text(caption)


def test_each_image_without_a_caption_and_each_caption_without_an_image_is_a_fault(folder: Path):
    (folder / "0.txt").unlink()
    (folder / "sub" / "1.txt").unlink()
    (folder / "notes.txt").write_text("x")
    listing = list_folder(folder)
    assert listing.faults == (
        f"{folder}/0.png: no caption; write it into 0.txt beside it",
        f"{folder}/sub/1.png: no caption; write it into 1.txt beside it",
        f"{folder}/notes.txt: a caption without an image; add the image or remove the file",
    )
    assert len(listing.samples) == 8
    with pytest.raises(DataError, match=r"0.png: no caption; .* \(and 2 more\)$"):
        folder_dataset(folder, 4, 0)
    assert len(CaptionedImages(listing.without([0]), 4, 0)) == 7


@pytest.mark.parametrize("suffix", [".txt", ".TXT", ".caption", ".Caption"])
def test_captions_beside_images(tmp_path: Path, suffix: str):
    add(tmp_path, "a.b.PNG", " one \n\ntwo", suffix)
    assert listed(tmp_path) == {"a.b.PNG": ["one", "two"]}


def test_json_beside_images(tmp_path: Path):
    add(tmp_path, "a.png", '{"text": ["one", "two"]}', ".json")
    add(tmp_path, "b.png", "b")
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "info.json").write_text("{}")
    assert listed(tmp_path) == {"a.png": ["one", "two"], "b.png": ["b"]}
    assert list_folder(tmp_path).notes == (f"{tmp_path}: 2 other files are not read: 2 .json",)


def test_all_formats_are_read_and_other_files_are_counted(tmp_path: Path):
    for kind in ("png", "jpg", "JPEG", "webp", "gif", "bmp", "tif", "TIFF"):
        add(tmp_path, f"{kind}.{kind}", kind)
    for name in ("a.heic", "b.HEIC", "c.pdf", "LICENSE"):
        (tmp_path / name).touch()
    assert len(listed(tmp_path)) == 8
    kinds = "2 .heic, 1 without an extension, 1 .pdf"
    [note] = list_folder(tmp_path).notes
    assert note.startswith(f"{tmp_path}: 4 other files are not read: ")
    assert set(note.rpartition("read: ")[2].split(", ")) == set(kinds.split(", "))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_linked_folders_are_followed_once(tmp_path: Path):
    root, other = tmp_path / "root", tmp_path / "other"
    add(root, "real/a.png", "a")
    add(other, "sub/b.png", "b")
    (root / "0-same").symlink_to(root / "real")
    (root / "linked").symlink_to(other)
    (other / "sub" / "back").symlink_to(root)  # a cycle
    (other / "up").symlink_to(tmp_path)  # all that is above the root
    assert listed(root) == {"real/a.png": ["a"], "linked/sub/b.png": ["b"]}
    notes = list_folder(root).notes
    assert [note.partition(": ")[0] for note in notes] == [
        f"{root}/{name}" for name in ("0-same", "linked/sub/back", "linked/up")
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_links_that_lead_nowhere_are_faults(tmp_path: Path):
    add(tmp_path, "a.png", "a")
    (tmp_path / "gone").symlink_to(tmp_path / "none")
    (tmp_path / "self").symlink_to("self")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would never end
    assert list_folder(tmp_path).faults == (
        f"{tmp_path}/gone: a broken link; restore or remove it",
        f"{tmp_path}/pipe.png: not a regular file; restore or remove it",
        f"{tmp_path}/self: a broken link; restore or remove it",
    )


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
        ("[" * 10_000, "line 1: not a JSON object"),
        ('"text"', "line 1: not a JSON object"),
        ({"text": "x"}, 'line 1: needs "file_name"'),
        ({"file_name": "a.png"}, 'line 1: needs "text" or "caption"'),
        ({"file_name": "a.png", "text": 3}, 'line 1: needs "text" or "caption"'),
        ('{"file_name": "a.png", "text": "\\ud800"}', "line 1: the caption is not valid Unicode"),
        ({"file_name": "a.png", "text": ""}, "a.png: the caption is empty"),
        ({"file_name": "b.png", "text": "x"}, "line 1: a caption without an image; add 'b.png' or remove the row"),
    ],
)
def test_bad_metadata_is_named(tmp_path: Path, row: object, words: str):
    root = metadata(tmp_path, row, {"file_name": "good.png", "text": "good"})
    (root / "a.png").write_bytes(encoded(flat(0)))
    (root / "good.png").write_bytes(encoded(flat(0)))
    listing = list_folder(root)
    assert words in listing.faults[0]
    assert [sample.captions() for sample in listing.samples] == [["good"]]  # one bad row spoils no other


def test_metadata_in_subfolders_and_as_csv(tmp_path: Path):
    for name in ("a.png", "one/b.png", "one/deep/c.png", "two/d.png", "two/e.png"):
        add(tmp_path, name)
    metadata(tmp_path / "one", {"file_name": "b.png", "text": "b"}, {"file_name": "deep/c.png", "text": "c"})
    (tmp_path / "one" / "README.txt").write_text("not a caption")
    (tmp_path / "two" / "metadata.csv").write_bytes(
        b'\xef\xbb\xbffile_name,width,text\r\nd.png,8,"a ""d"", quoted"\r\ne.png,,\xc3\xa9\r\n'
    )
    (tmp_path / "a.txt").write_text("a")
    assert listed(tmp_path) == {
        "a.png": ["a"],
        "one/b.png": ["b"],
        "one/deep/c.png": ["c"],
        "two/d.png": ['a "d", quoted'],
        "two/e.png": ["é"],
    }
    (tmp_path / "two" / "metadata.csv").write_text('file_name,text\nd.png,"open')
    [first, *_] = list_folder(tmp_path).faults
    assert first.startswith(f"{tmp_path}/two/metadata.csv: cannot be read as CSV")


def test_parquet_metadata_is_reported(tmp_path: Path):
    add(tmp_path, "a.png", "a")
    (tmp_path / "metadata.parquet").touch()
    assert list_folder(tmp_path).faults == (
        f"{tmp_path}/metadata.parquet: not read; export it as metadata.jsonl or metadata.csv",
    )


def test_folders_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(DataError, match="not a folder"):
        list_folder(tmp_path / "none")
    with pytest.raises(DataError, match="no images"):
        list_folder(tmp_path)
    add(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    data = folder_dataset(tmp_path, 4, 0)
    with pytest.raises(DataError, match="a.txt: not UTF-8"):
        data[0]
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(DataError, match="a.txt: the caption is empty"):
        data[0]
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="a.png: cannot be read"):
        data[0]
