import dataclasses
import json
import struct
import zlib
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.images.profiles import rgb_profile
from unclip.errors import DataError, UnclipError
from unclip.images import metadata
from unclip.images.result import Result, record
from unclip.requests.request import Request
from unclip.version import __version__


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
        "dtype": None,
        "seed": 7,
        "request": result.request.to_dict(),
        "score": 0.25,
        "notes": ["unknown word: ペンギン"],
        "pixels": metadata.pixel_hash(result.image),
    }
    assert found["request"]["prompt"] == "a penguin — ペンギン"


def test_pillow_sees_the_record_too(result: Result, tmp_path):
    with Image.open(result.save(tmp_path / "image.png")) as image:
        assert json.loads(image.text["unclip"]) == record(result)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_every_format_has_the_colour_profile_of_the_image(result: Result, tmp_path, format: str, mode: str):
    plain = result.save(tmp_path / f"plain.{format}")
    image = result.image.convert(mode)
    image.info["icc_profile"] = rgb_profile()
    path = dataclasses.replace(result, image=image).save(tmp_path / f"image.{format}")
    with Image.open(path) as tagged, Image.open(plain) as untagged:
        assert tagged.info["icc_profile"] == rgb_profile() and "icc_profile" not in untagged.info
    assert metadata.read(path)["pixels"] == metadata.pixel_hash(image)


def test_the_same_result_gives_the_same_bytes(result: Result):
    assert result.to_bytes() == result.to_bytes()


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


@pytest.mark.parametrize("format", ["jpg", "webp"])
def test_lossy_formats_keep_the_record_in_exif(result: Result, tmp_path, format):
    path = result.save(tmp_path / f"image.{format}")
    assert metadata.read(path) == record(result)
    with Image.open(path) as image:
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == metadata.parameters(record(result))


@pytest.mark.parametrize("format", ["jpg", "webp"])
@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a <cat> & “dog”\n\tat sea", "a <cat> & “dog”\n\tat sea"),
        ("\x00\x0b\x1b\ufffe ペンギン", "     ペンギン"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
        ("]]>" * 5_000, ("]]>" * 5_000)[:8_000]),
        ("🐧" * 5_000, "🐧" * 5_000),  # of four bytes each
    ],
    ids=["markup", "control", "joiners", "long", "wide"],
)
def test_lossy_formats_have_xmp_for_photo_programs(result: Result, tmp_path, format, prompt, shown):
    path = dataclasses.replace(result, request=Request(prompt=prompt, seed=1, size=8)).save(tmp_path / f"x.{format}")
    with Image.open(path) as image:
        packet = image.info["xmp"]
    [about] = ElementTree.fromstring(packet).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert "".join(about.itertext()) == shown
    assert about.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == f"unclip {__version__}, stickers"
    source = about.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def test_xmp_tells_an_edited_photograph_from_a_drawn_picture(result: Result, tmp_path):
    edit = Request(mode="outpaint", image="photo.png", left=8, prompt="a beach", seed=1)
    with Image.open(dataclasses.replace(result, request=edit).save(tmp_path / "wide.jpg")) as image:
        assert b"/compositeWithTrainedAlgorithmicMedia" in image.info["xmp"]


def test_parameters_are_the_lines_that_other_tools_read(result: Result, tmp_path):
    full = dataclasses.replace(result, request=result.request.resolved(steps=12), seed=8)
    negative = dataclasses.replace(full, request=full.request.replace(negative_prompt="a dog", size=None))
    ending = f"Seed: 8, Size: 8x8, Model: stickers, Version: unclip {__version__}"
    with Image.open(full.save(tmp_path / "image.png")) as image:
        told = image.text["parameters"]
    assert told == f"a penguin — ペンギン\nSteps: 12, Sampler: ddim, CFG scale: 0.0, {ending}"
    lines = metadata.parameters(record(negative)).splitlines()
    assert lines[1] == "Negative prompt: a dog" and "Size" not in lines[2]


def test_a_long_record(result: Result, tmp_path):
    long = dataclasses.replace(result, request=Request(prompt="x" * 40_000, seed=1, size=8))
    assert metadata.read(long.save(tmp_path / "image.webp"))["request"]["prompt"] == "x" * 40_000
    longer = dataclasses.replace(result, request=Request(prompt="x" * 70_000, seed=1, size=8))
    assert metadata.read(longer.save(tmp_path / "image.png"))["request"]["prompt"] == "x" * 70_000
    with pytest.raises(UnclipError, match="write PNG"):
        longer.save(tmp_path / "image.jpg")


def test_no_bytes_break_the_reader(result: Result, tmp_path, capsys):
    whole = {format: result.to_bytes(format) for format in ("png", "jpg", "webp")}
    path, tried, read = tmp_path / "fuzz", 0, 0

    @settings(max_examples=400, deadline=None, database=None)
    @given(st.sampled_from(sorted(whole)), st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=9)), max_size=4))
    def fuzz(format, changes):
        nonlocal tried, read
        data = bytearray(whole[format])
        for place, new in changes:
            place %= len(data)
            data[place : place + max(1, len(new) - 1)] = new  # replaces, inserts or removes
        path.write_bytes(data)
        tried += 1
        try:
            assert isinstance(metadata.read(path), dict)
            read += 1
        except DataError as error:
            assert "\n" not in str(error)

    fuzz()
    with capsys.disabled():
        print(f" [metadata: {tried} inputs tried, {read} read]", end="")
    assert tried >= 400 and read


def test_a_jpeg_has_white_for_what_is_clear(result: Result, tmp_path) -> None:
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 8, 16))
    with Image.open(dataclasses.replace(result, image=clear).save(tmp_path / "clear.jpg")) as image:
        assert image.mode == "RGB"
        assert min(image.getpixel((14, 8))) > 247 and image.getpixel((2, 8))[0] > 247 > 8 > image.getpixel((2, 8))[1]
