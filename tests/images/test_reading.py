import struct

import pytest
from PIL import Image, ImageOps

from unclip.errors import DataError
from unclip.images.reading import check_header, check_size, open_image, opened
from unclip.requests.fields import MAX_SIDE


@pytest.mark.parametrize(
    "error", [ValueError("two\nlines"), SyntaxError("broken"), OSError(5, "Input/output error"), KeyError()]
)
def test_every_error_becomes_one_line(error: Exception) -> None:
    with (
        pytest.raises(DataError, match="^cannot read the image") as caught,
        opened(Image.new("L", (1, 1)), "the image"),
    ):
        raise error
    assert "\n" not in str(caught.value)


def test_a_data_error_passes_unchanged() -> None:
    error = DataError("own message")
    with pytest.raises(DataError) as caught, opened(Image.new("L", (1, 1)), "the image"):
        raise error
    assert caught.value is error


def test_missing_and_unknown_files_are_named(tmp_path) -> None:
    (tmp_path / "no.png").write_text("hello")
    with pytest.raises(DataError, match="no.png' is not a readable image; give one of PNG"):
        open_image(tmp_path / "no.png", "mask")
    with pytest.raises(DataError, match="cannot read the mask .*none.png.*No such file"):
        check_header(tmp_path / "none.png", "mask")


def test_a_tiff_that_pillow_does_not_read_is_named_as_one(tmp_path) -> None:
    path = tmp_path / "float.tiff"  # RGB in floats of 32 bits
    tags = [(256, 6), (257, 4), (258, 32), (259, 1), (262, 2), (273, 134), (277, 3), (278, 4), (279, 288), (339, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4 + 288))
    with pytest.raises(DataError, match="float.tiff' is a TIFF of a kind that is not read: save it with 8 bits"):
        check_header(path, "image")


def test_images_above_pillows_limit_are_refused(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (40, 30)).save(tmp_path / "large.png")
    for limit in (1000, 100):  # Pillow warns of the first and refuses the second
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=f"larger than Pillow's limit of {limit:,} pixels"):
            open_image(tmp_path / "large.png", "image")


def test_the_header_tells_the_upright_size_and_transparency(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "rotated.png", exif=exif)
    Image.new("RGBA", (6, 4)).save(tmp_path / "clear.png")
    assert check_header(tmp_path / "rotated.png", "image") == ((4, 6), False)
    assert check_header(tmp_path / "clear.png", "image") == ((6, 4), True)
    assert open_image(tmp_path / "rotated.png", "image").size == (4, 6)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_size_that_the_image_has(format: str, orientation: int, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(tmp_path / "image", format, exif=exif)
    size, _ = check_header(tmp_path / "image", "image")
    assert size == open_image(tmp_path / "image", "image").size == ((4, 6) if orientation >= 5 else (6, 4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_as_pillow_rotates_them(orientation: int, tmp_path) -> None:
    exif, image = Image.Exif(), Image.linear_gradient("L").resize((6, 4)).rotate(30)
    exif[0x0112] = orientation
    image.save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as saved:
        assert open_image(tmp_path / "image.png", "image").tobytes() == ImageOps.exif_transpose(saved).tobytes()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0no header", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_malformed_exif_is_ignored(format: str, exif: bytes, tmp_path) -> None:
    Image.new("RGB", (6, 4), "red").save(tmp_path / "image", format, exif=exif)
    assert check_header(tmp_path / "image", "image")[0] == (6, 4)
    image = open_image(tmp_path / "image", "image")
    assert image.size == (6, 4) and image.convert("RGB").getpixel((2, 2))[0] > 250


def test_malformed_metadata_prints_no_warning(tmp_path, recwarn: pytest.WarningsRecorder) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "image.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    open_image(tmp_path / "image.jpg", "image")
    assert not recwarn.list


def test_sides_have_a_limit() -> None:
    check_size((MAX_SIDE, 1), "image")
    with pytest.raises(DataError, match=f"the image is {MAX_SIDE + 1}x1"):
        check_size((MAX_SIDE + 1, 1), "image")
    long = Image.new("1", (MAX_SIDE + 1, 1))
    with pytest.raises(DataError, match=f"the image is {MAX_SIDE + 1}x1"):
        check_header(long, "image")
    assert check_header(long, "image", max_side=None)[0] == long.size
