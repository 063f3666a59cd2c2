import json
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from unclip import __version__, metadata
from unclip.errors import DataError
from unclip.request import Result


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def test_read_gives_what_was_written(result: Result, tmp_path):
    found = metadata.read(result.save(tmp_path / "image.png"))
    assert found == {
        "version": __version__,
        "model": "stickers",
        "revision": None,
        "seed": 7,
        "request": result.request.to_dict(),
        "score": 0.25,
        "notes": ["unknown word: ペンギン"],
    }
    assert found["request"]["prompt"] == "a penguin — ペンギン"


def test_pillow_sees_the_record_too(result: Result, tmp_path):
    with Image.open(result.save(tmp_path / "image.png")) as image:
        assert json.loads(image.text["unclip"]) == metadata.record(result)


def test_the_same_result_gives_the_same_bytes(result: Result):
    assert result.to_png() == result.to_png()


def test_a_record_behind_other_chunks_is_found(tmp_path):
    other = chunk(b"tEXt", b"Comment\0unclip") + chunk(b"tEXt", b"u") + chunk(b"IDAT", b"\0" * 100)
    path = tmp_path / "image.png"
    path.write_bytes(png(other, chunk(b"tEXt", b'unclip\0{"seed": 3}')))
    assert metadata.read(path) == {"seed": 3}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a PNG"),
        (b"GIF89a" + b"\0" * 20, "not a PNG"),
        (b"\x89PNG\r\n\x1a\n", "no record"),
        (png(), "no record"),
        (png(chunk(b"tEXt", b"unclipped\0{}")), "no record"),
        (png(chunk(b"tEXt", b"unclip\0{broken")), "not JSON"),
        (png(chunk(b"tEXt", b'unclip\0{"score": NaN}')), "not JSON"),
        (png(chunk(b"tEXt", b"unclip\0" + b"[" * 200_000)), "not JSON"),
        (png(chunk(b"tEXt", b"unclip\0[1]")), "not a JSON object"),
        (png(chunk(b"tEXt", b"unclip\0" + b" " * (1 << 20))), "at most"),
        (png(chunk(b"tEXt", b"unclip\0{}")[:-4] + b"\0\0\0\0"), "checksum"),
        (png(chunk(b"tEXt", b"unclip\0{}"))[:25], "checksum"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0xFFFFFFFF) + b"tEXtunclip\0", "at most"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 0xFFFFFFFF) + b"IDAT", "no record"),
    ],
)
def test_anything_else_is_a_data_error(data, says, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        metadata.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["missing.png", ".", "nul\0.png"])
def test_a_file_that_cannot_be_opened(path, tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        metadata.read(f"{tmp_path}/{path}")


def test_a_picture_of_another_program(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "steps: 20")
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png", pnginfo=info)
    with pytest.raises(DataError, match="no record"):
        metadata.read(tmp_path / "other.png")
