"""Tar shards: patterns, samples, and damaged or incomplete files."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.training.data.helpers import encoded, flat, pixel, same, shard_dataset, write_tar
from unclip.errors import DataError
from unclip.training.data.webdataset import list_shards


def test_shards_by_glob_and_list_are_the_same(tmp_path: Path, shards: str):
    by_range = shard_dataset(shards, 4, 1)
    by_glob = shard_dataset(str(tmp_path / "s-*.tar"), 4, 1)
    by_list = shard_dataset([tmp_path / "s-000.tar", tmp_path / "s-001.tar"], 4, 1)
    assert all(same(by_range[i], by_glob[i]) and same(by_range[i], by_list[i]) for i in range(10))


def test_shards_written_by_webdataset(tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as sink:
        for n in range(3):
            sink.write({"__key__": f"k/{n}", "png": flat(20 * n), "json": {"text": [str(n)]}})
    data = shard_dataset(tmp_path / "w.tar", 8, 0)
    ours = {caption: pixel(image, 0, 0) for image, caption in (data[i] for i in range(3))}
    theirs = webdataset.WebDataset(str(tmp_path / "w.tar"), shardshuffle=False).decode("rgb8")
    assert ours == {s["json"]["text"][0]: tuple(s["png"][0, 0].tolist()) for s in theirs}


def listed(path: Path, *names: str) -> tuple[list[tuple[str, list[str]]], list[str], list[str]]:
    """The samples of a shard with members of some names, each caption its own name; the faults; the notes."""
    images = ("png", "jpg", "gif", "tiff")
    kinds = {"json": lambda name: json.dumps({"caption": name}).encode()}
    members = {
        name: encoded(flat(0)) if name.endswith(images) else kinds.get(name[-4:], str.encode)(name) for name in names
    }
    shard = write_tar(path / "s.tar", members)
    listing = list_shards(shard)
    samples = [(sample.name.removeprefix(f"{shard}, sample "), sample.captions()) for sample in listing.samples]
    shown = [
        [line.removeprefix(str(shard)).strip(":, ") for line in lines] for lines in (listing.faults, listing.notes)
    ]
    return samples, *shown


def test_images_without_a_caption_and_captions_without_an_image_are_faults(tmp_path: Path):
    samples, faults, _ = listed(tmp_path, "a.png", "b.txt", "c.png", "c.txt")
    assert samples == [("c", ["c.txt"])]
    assert faults == [
        "sample a: no caption; add a.txt or remove the image",
        "sample b: a caption without an image; add it or remove it",
    ]


def test_names_with_dots_are_names(tmp_path: Path):
    names = ["photo.2021.jpg", "photo.2021.txt", "photo.2022.jpg", "photo.2022.TXT", "v1.0/cat.jpeg.jpg"]
    names += ["v1.0/cat.jpeg.caption", "01.tiff", "01.json"]
    samples, faults, notes = listed(tmp_path, *names)
    assert samples == [
        ("photo.2021", ["photo.2021.txt"]),
        ("photo.2022", ["photo.2022.TXT"]),
        ("v1.0/cat.jpeg", ["v1.0/cat.jpeg.caption"]),
        ("01", ["01.json"]),
    ]
    assert not faults and not notes


def test_fields_of_a_webdataset_sample_are_one_sample(tmp_path: Path):
    samples, faults, notes = listed(
        tmp_path, "0.photo.jpg", "0.title.txt", "1.jpg", "1.txt", "1.mask.png", "1.cls", "2.jpg", "2.gif", "2.txt"
    )
    assert samples == [("0", ["0.title.txt"]), ("1", ["1.txt"]), ("2", ["2.txt"])]
    assert not faults
    [note] = notes
    assert note.startswith("3 other files are not read: ")
    assert set(note.partition("read: ")[2].split(", ")) == {"1 .png", "1 .cls", "1 .gif"}


def test_no_image_of_a_name_with_dots_is_dropped_silently(tmp_path: Path):
    samples, faults, _ = listed(tmp_path, "a.1.jpg", "a.1.txt", "a.2.jpg", "b.1.jpg", "b.2.jpg", "b.txt", "plain")
    assert samples == [("a.1", ["a.1.txt"])]
    assert [fault.partition(":")[0] for fault in faults] == [f"sample {name}" for name in ("a.2", "b.1", "b.2", "b")]


def test_links_and_repeated_members_are_faults(tmp_path: Path):
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for name, data in (("a.png", encoded(flat(7))), ("a.txt", b"a"), ("a.txt", b"again")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.LNKTYPE, "a.png"
        tar.addfile(link)
    listing = list_shards(shard)
    assert [sample.captions() for sample in listing.samples] == [["a"]]
    assert listing.faults == (
        f"{shard}: a.txt occurs twice; rename or remove one",
        f"{shard}: b.png is a link or a device; pack the file itself (tar --dereference)",
    )


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.png": b"junk", "a.txt": b"a"}, "sample a is not a readable image"),
        ({"a.png": encoded(flat(0))[:44], "a.txt": b"a"}, r"sample a \("),
        ({"a.png": encoded(flat(0)), "a.txt": b" "}, "sample a: the caption is empty"),
        ({"a.png": encoded(flat(0)), "a.json": b"{"}, "sample a: not a JSON object"),
        ({"a.png": encoded(flat(0)), "a.json": b'{"url": ""}'}, 'sample a: needs "text"'),
    ],
)
def test_a_bad_sample_is_named_when_it_is_read(tmp_path: Path, members: dict[str, bytes], words: str):
    data = shard_dataset(write_tar(tmp_path / "s.tar", members), 4, 0)
    with pytest.raises(DataError, match=f"s.tar, {words}"):
        data[0]


def test_shards_that_cannot_be_read(tmp_path: Path):
    members = {"a.png": encoded(flat(0)), "a.txt": b"a"}
    with pytest.raises(DataError, match=r"compressed; unpack .*gunzip z.tar.gz"):
        shard_dataset(write_tar(tmp_path / "z.tar.gz", members, "w:gz"), 4, 0)
    with pytest.raises(DataError, match="no such shard"):
        shard_dataset(str(tmp_path / "s-*.tar"), 4, 0)
    with pytest.raises(DataError, match="range {5..2} is empty"):
        shard_dataset("s-{5..2}.tar", 4, 0)
    with pytest.raises(DataError, match="has more than 1,000,000 shards"):
        list_shards("s-{0..999999999999}.tar")
    (tmp_path / "junk.tar").write_bytes(b"junk" * 500)
    with pytest.raises(DataError, match="junk.tar: not a readable tar"):
        shard_dataset(tmp_path / "junk.tar", 4, 0)
    with pytest.raises(DataError, match="no samples"):
        shard_dataset(write_tar(tmp_path / "empty.tar", {"readme": b""}), 4, 0)


def test_a_truncated_or_overwritten_shard_is_an_error(tmp_path: Path):
    members = {f"{n}.{e}": d for n in range(3) for e, d in (("png", encoded(flat(n))), ("txt", b"x"))}
    shard = write_tar(tmp_path / "s.tar", members)
    whole = shard.read_bytes()
    loaded = shard_dataset(shard, 4, 0)
    shard.write_bytes(whole[:1024] + b"\xff" * 512 + whole[1536:])  # the header of the second member
    assert len(list_shards(shard).samples) == 0 and len(list_shards(shard).faults) == 2
    with pytest.raises(DataError, match="s.tar: "):
        shard_dataset(shard, 4, 0)
    shard.write_bytes(whole[:600])
    with pytest.raises(DataError, match="s.tar: "):
        shard_dataset(shard, 4, 0)
    with pytest.raises(DataError, match="cut off"):
        [loaded[i] for i in range(3)]
