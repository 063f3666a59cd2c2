"""Tar shards: patterns, samples, and damaged or incomplete files."""

from pathlib import Path

import pytest

from tests.training.data.helpers import encoded, flat, pixel, same, shard_dataset, write_tar
from unclip.errors import DataError


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


def test_images_without_a_caption_and_captions_without_an_image_are_counted(tmp_path: Path):
    members = {"a.png": encoded(flat(0)), "b.txt": b"b", "c.png": encoded(flat(0)), "c.txt": b"c"}
    shard = write_tar(tmp_path / "s.tar", members)
    with pytest.raises(DataError) as caught:
        shard_dataset(shard, 4, 0)
    assert f"1 without a caption (first: {shard}, sample a)" in str(caught.value)
    assert f"1 without an image (first: {shard}, sample b)" in str(caught.value)


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
    with pytest.raises(DataError, match="s.tar: "):
        shard_dataset(shard, 4, 0)
    shard.write_bytes(whole[:600])
    with pytest.raises(DataError, match="s.tar: "):
        shard_dataset(shard, 4, 0)
    with pytest.raises(DataError, match="cut off"):
        [loaded[i] for i in range(3)]
