"""The data interface of training: what comes out of folders, shards and scenes, and what is refused."""

import io
import itertools
import json
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import DataError
from unclip.training.data.decode import decode_image
from unclip.training.data.folder import Folder
from unclip.training.data.loader import batches
from unclip.training.data.open import open_dataset
from unclip.training.data.scenes import Scenes
from unclip.training.data.webdataset import Shards

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def flat(shade: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, (shade, shade, shade))


def halves(width: int = 16, height: int = 8) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def pixel(image: torch.Tensor, x: int, y: int) -> tuple[int, ...]:
    return tuple(image[:, y, x].tolist())


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


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


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
def stored(request, folder: Path, shards: str):
    return Folder(folder, 4, 3) if request.param == "folder" else Shards(shards, 4, 3)


def same(a, b) -> bool:
    return torch.equal(a[0], b[0]) and a[1] == b[1]


# ---- order


def test_an_epoch_holds_every_image_once_with_its_own_caption(stored):
    assert len(stored) == 10
    orders = []
    for epoch in range(3):
        samples = [stored[10 * epoch + i] for i in range(10)]
        for image, caption in samples:
            assert image.dtype == torch.uint8 and image.shape == (3, 4, 4)
            assert pixel(image, 1, 2) == (20 * int(caption),) * 3
        orders.append([caption for _, caption in samples])
        assert sorted(orders[-1]) == [str(n) for n in range(10)]
    assert orders[0] != orders[1] != orders[2]


def test_random_access_equals_sequential(stored):
    sequential = [stored[i] for i in range(30)]
    indices = list(range(30))
    random.Random(0).shuffle(indices)
    copy = pickle.loads(pickle.dumps(stored))
    assert all(same(copy[i], sequential[i]) for i in indices)


def test_the_seed_decides_the_order(folder: Path):
    first, again, other = (Folder(folder, 4, seed) for seed in (0, 0, 1))
    captions = [[data[i][1] for i in range(10)] for data in (first, again, other)]
    assert captions[0] == captions[1] != captions[2]


def test_negative_indices_are_refused(stored):
    with pytest.raises(IndexError):
        stored[-1]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_consecutive_and_resume(stored, workers: int):
    whole = list(itertools.islice(batches(stored, 4, 0, 0), 6))  # 24 indices: into the third epoch
    images, captions = whole[3]
    assert images.shape == (4, 3, 4, 4) and images.dtype == torch.uint8
    assert all(same((images[j], captions[j]), stored[12 + j]) for j in range(4))
    resumed = list(itertools.islice(batches(stored, 4, 2, workers), 4))
    assert all(same(a, b) for a, b in zip(resumed, whole[2:], strict=True))


def test_batches_leave_the_global_generator_alone(stored):
    before = torch.get_rng_state()
    next(batches(stored, 2))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_ends_batches_with_one_line(folder: Path, workers: int):
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(whole[:50])
    with pytest.raises(DataError, match="4.png: ") as caught:
        list(itertools.islice(batches(Folder(folder, 4, 0), 2, 0, workers), 5))
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


# ---- pixels


def test_the_shorter_side_is_resized_and_the_centre_kept():
    image = Image.new("RGB", (30, 10), WHITE)
    image.paste(RED, (10, 0, 20, 10))
    out = decode_image(encoded(image), "x", 5)
    assert out.shape == (3, 5, 5) and pixel(out, 2, 2) == RED
    square = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    expected = np.asarray(square.resize((8, 8), Image.Resampling.BICUBIC))  # antialiased
    assert np.array_equal(decode_image(encoded(square), "x", 8).permute(1, 2, 0).numpy(), expected)


def test_a_long_strip_costs_only_its_square():
    assert decode_image(encoded(flat(9, (1, 20_000))), "x", 64).shape == (3, 64, 64)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG"])
def test_exif_orientation_is_applied(format: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise: the left of the file is the top of the picture
    out = decode_image(encoded(halves(16, 16), format, exif=exif), "x", 8)
    for x in (1, 6):
        assert torch.tensor(pixel(out, x, 0)).sub(torch.tensor(RED)).abs().max() < 30
        assert torch.tensor(pixel(out, x, 7)).sub(torch.tensor(BLUE)).abs().max() < 30


def transparent_images() -> dict[str, bytes]:
    """Left half opaque black, right half a fully transparent other colour."""
    rgba = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    rgba.paste((0, 0, 255, 0), (8, 0, 16, 16))
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.paste(1, (8, 0, 16, 16))
    rgb = Image.new("RGB", (16, 16), (0, 0, 0))
    rgb.paste(BLUE, (8, 0, 16, 16))
    return {
        "rgba": encoded(rgba),
        "la": encoded(rgba.convert("LA")),
        "webp": encoded(rgba, "WEBP", lossless=True),
        "palette": encoded(palette, transparency=1),
        "colour key": encoded(rgb, transparency=BLUE),
    }


@pytest.mark.parametrize("name", transparent_images())
def test_transparency_is_composited_on_white(name: str):
    out = decode_image(transparent_images()[name], "x", 16)
    assert pixel(out, 1, 8) == (0, 0, 0) and pixel(out, 14, 8) == WHITE


def test_half_transparency_is_blended():
    out = decode_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), "x", 4)
    assert pixel(out, 1, 1) == (204, 204, 204)


def test_other_modes_become_rgb():
    assert pixel(decode_image(encoded(halves().convert("P")), "x", 8), 0, 0) == RED
    assert pixel(decode_image(encoded(Image.new("L", (4, 4), 77)), "x", 4), 0, 0) == (77,) * 3
    assert pixel(decode_image(encoded(Image.new("1", (4, 4), 1)), "x", 4), 0, 0) == WHITE
    sixteen = Image.fromarray(np.full((4, 4), 100 * 257, dtype=np.uint16))
    assert pixel(decode_image(encoded(sixteen), "x", 4), 0, 0) == (100,) * 3
    cmyk = decode_image(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), "x", 4)
    assert torch.tensor(pixel(cmyk, 1, 1)).sub(torch.tensor(RED)).abs().max() < 10


def test_the_pixel_limit_holds(monkeypatch):
    data = encoded(flat(0, (20, 10)))
    for limit in (150, 50):  # Pillow itself warns at the first and raises at the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="pixels"):
            decode_image(data, "x", 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert decode_image(data, "x", 4).shape == (3, 4, 4)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_damaged_images_raise_only_data_errors(format: str):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    data, rng = encoded(noise, format), random.Random(0)
    for cut in (0, 4, 20, len(data) // 2):
        with pytest.raises(DataError, match="^here: .*") as caught:
            decode_image(data[:cut], "here", 4)
        assert "\n" not in str(caught.value)
    for _ in range(200):
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        try:
            decode_image(bytes(broken), "here", 4)
        except DataError as error:
            assert str(error).startswith("here: ") and "\n" not in str(error)


def test_other_formats_are_refused_whatever_their_name():
    for format in ("GIF", "BMP", "TIFF"):
        with pytest.raises(DataError, match="not a readable PNG, JPEG or WebP"):
            decode_image(encoded(flat(0), format), "x.png", 4)


# ---- folders


def test_one_of_several_captions_is_drawn(tmp_path: Path):
    (tmp_path / "a.JPG").write_bytes(encoded(flat(50), "JPEG"))
    (tmp_path / "a.txt").write_text("one\n\n  two  \n")
    (tmp_path / ".hidden.txt").write_text("no")
    data = Folder(tmp_path, 4, 0)
    drawn = [data[i][1] for i in range(40)]
    assert set(drawn) == {"one", "two"} and drawn == [data[i][1] for i in range(40)]


def test_images_without_caption_and_captions_without_image_are_counted(folder: Path):
    (folder / "0.txt").unlink()
    (folder / "2.txt").write_text(" \n")
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        Folder(folder, 4, 0)
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
    data = Folder(root, 4, 0)
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
        Folder(root, 4, 0)


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
        Folder(root, 4, 0)


def test_folders_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(DataError, match="not a folder"):
        Folder(tmp_path / "none", 4, 0)
    with pytest.raises(DataError, match="no images"):
        Folder(tmp_path, 4, 0)
    (tmp_path / "a.png").write_bytes(encoded(flat(0)))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="a.txt: not UTF-8"):
        Folder(tmp_path, 4, 0)
    (tmp_path / "a.txt").write_text("a")
    data = Folder(tmp_path, 4, 0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="a.png: cannot be read"):
        data[0]


# ---- shards


def test_shards_by_glob_and_list_are_the_same(tmp_path: Path, shards: str):
    by_range = Shards(shards, 4, 1)
    by_glob = Shards(str(tmp_path / "s-*.tar"), 4, 1)
    by_list = Shards([tmp_path / "s-000.tar", tmp_path / "s-001.tar"], 4, 1)
    assert all(same(by_range[i], by_glob[i]) and same(by_range[i], by_list[i]) for i in range(10))


def test_shards_written_by_webdataset(tmp_path: Path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as sink:
        for n in range(3):
            sink.write({"__key__": f"k/{n}", "png": flat(20 * n), "json": {"text": [str(n)]}})
    data = Shards(tmp_path / "w.tar", 8, 0)
    ours = {caption: pixel(image, 0, 0) for image, caption in (data[i] for i in range(3))}
    theirs = webdataset.WebDataset(str(tmp_path / "w.tar"), shardshuffle=False).decode("rgb8")
    assert ours == {s["json"]["text"][0]: tuple(s["png"][0, 0].tolist()) for s in theirs}


def test_shards_with_missing_halves(tmp_path: Path):
    members = {"a.png": encoded(flat(0)), "b.txt": b"b", "c.png": encoded(flat(0)), "c.txt": b"c"}
    shard = write_tar(tmp_path / "s.tar", members)
    with pytest.raises(DataError) as caught:
        Shards(shard, 4, 0)
    assert f"1 without a caption (first: {shard}, sample a)" in str(caught.value)
    assert f"1 without an image (first: {shard}, sample b)" in str(caught.value)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.png": b"junk", "a.txt": b"a"}, "sample a: not a readable PNG"),
        ({"a.png": encoded(flat(0))[:44], "a.txt": b"a"}, "sample a: damaged"),
        ({"a.png": encoded(flat(0)), "a.txt": b" "}, "sample a: its caption is empty"),
        ({"a.png": encoded(flat(0)), "a.json": b"{"}, "sample a: not a JSON object"),
        ({"a.png": encoded(flat(0)), "a.json": b'{"url": ""}'}, 'sample a: needs "text"'),
    ],
)
def test_a_bad_sample_is_named_when_it_is_read(tmp_path: Path, members: dict[str, bytes], words: str):
    data = Shards(write_tar(tmp_path / "s.tar", members), 4, 0)
    with pytest.raises(DataError, match=f"s.tar, {words}"):
        data[0]


def test_shards_that_cannot_be_read(tmp_path: Path):
    members = {"a.png": encoded(flat(0)), "a.txt": b"a"}
    with pytest.raises(DataError, match=r"compressed; unpack .*gunzip z.tar.gz"):
        Shards(write_tar(tmp_path / "z.tar.gz", members, "w:gz"), 4, 0)
    with pytest.raises(DataError, match="no such shard"):
        Shards(str(tmp_path / "s-*.tar"), 4, 0)
    with pytest.raises(DataError, match="range {5..2} is empty"):
        Shards("s-{5..2}.tar", 4, 0)
    (tmp_path / "junk.tar").write_bytes(b"junk" * 500)
    with pytest.raises(DataError, match="junk.tar: not a readable tar"):
        Shards(tmp_path / "junk.tar", 4, 0)
    with pytest.raises(DataError, match="no samples"):
        Shards(write_tar(tmp_path / "empty.tar", {"readme": b""}), 4, 0)


def test_a_cut_or_overwritten_shard_is_not_taken_for_a_shorter_one(tmp_path: Path):
    members = {f"{n}.{e}": d for n in range(3) for e, d in (("png", encoded(flat(n))), ("txt", b"x"))}
    shard = write_tar(tmp_path / "s.tar", members)
    whole = shard.read_bytes()
    loaded = Shards(shard, 4, 0)
    shard.write_bytes(whole[:1024] + b"\xff" * 512 + whole[1536:])  # the header of the second member
    with pytest.raises(DataError, match="s.tar: "):
        Shards(shard, 4, 0)
    shard.write_bytes(whole[:600])
    with pytest.raises(DataError, match="s.tar: "):
        Shards(shard, 4, 0)
    with pytest.raises(DataError, match="cut off"):
        [loaded[i] for i in range(3)]


# ---- recipes


def test_open_dataset_opens_each_kind(folder: Path, shards: str):
    assert same(open_dataset({"kind": "folder", "path": str(folder)}, 4, 1)[7], Folder(folder, 4, 1)[7])
    assert same(open_dataset({"kind": "webdataset", "shards": shards}, 4, 1)[7], Shards(shards, 4, 1)[7])
    assert same(open_dataset({"kind": "webdataset", "shards": [shards]}, 4, 1)[7], Shards(shards, 4, 1)[7])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "data kind None is unknown; known: scenes, folder, webdataset"),
        ({"kind": "webdatset"}, "did you mean 'webdataset'"),
        ({"kind": ["folder"]}, "is unknown"),
        ({"kind": "folder", "paht": "x"}, "no key 'paht'; did you mean 'path'"),
        ({"kind": "folder"}, "needs the key 'path'"),
        ({"kind": "folder", "path": 3}, "data key 'path' is 3"),
        ({"kind": "folder", "path": ""}, "data key 'path' is ''"),
        ({"kind": "webdataset", "shards": []}, "data key 'shards'"),
        ({"kind": "scenes", "split": "trian"}, "did you mean 'train'"),
        ({"kind": "scenes", "alike": 0}, "data key 'alike' is 0"),
        ({"kind": "scenes", "nouns": "cat"}, "data key 'nouns' is 'cat'"),
        ({"kind": "scenes", "nouns": ["cat", "cat"]}, "a list of two nouns or more"),
        ({"kind": "scenes", "nouns": [["cat"], ["dog"]]}, "data key 'nouns'"),
        ({"kind": "scenes", "nouns": ["cat", "penguim"]}, "no noun 'penguim'; did you mean 'penguin'"),
        ({"kind": "scenes", "alike": 1.5}, "data key 'alike' is 1.5"),
        ({"kind": "scenes", "hard_pairs": 1}, "data key 'hard_pairs' is 1; it must be true or false"),
    ],
)
def test_open_dataset_names_what_is_wrong(config: dict, words: str):
    with pytest.raises(DataError, match=words):
        open_dataset(config, 4, 0)


def test_scenes_are_a_function_of_seed_and_index():
    data = Scenes(32, 5)
    samples = [data[i] for i in range(4)]
    for image, caption in samples:
        assert image.dtype == torch.uint8 and image.shape == (3, 32, 32) and caption
    assert all(same(data[i], samples[i]) for i in (3, 1, 2, 0))
    assert same(open_dataset({"kind": "scenes"}, 32, 5)[2], samples[2])
    assert len({caption for _, caption in samples}) > 1
    assert not same(Scenes(32, 6)[0], samples[0])
