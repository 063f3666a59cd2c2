import dataclasses

import pytest
from PIL import Image

from unclip.errors import DataError
from unclip.images.compare import BFLOAT16_TOLERANCE, TOLERANCE, Comparison, compare
from unclip.images.result import Result, record


@pytest.mark.parametrize(
    ("change", "agrees"), [(0, True), (TOLERANCE, True), (TOLERANCE + 1, False), (BFLOAT16_TOLERANCE, False)]
)
def test_png_files_are_compared_by_pixel(result: Result, tmp_path, change: int, agrees: bool) -> None:
    path, (r, g, b) = result.save(tmp_path / "image.png"), result.image.getpixel((0, 0))
    other = result.image.copy()
    other.putpixel((3, 3), (r, g + change, b))
    found = compare(str(path), record(result), other)
    mean = change / (3 * other.width * other.height) ** 0.5
    assert (found.identical, found.difference, found.agrees) == (change == 0, change, agrees)
    assert found.rms == pytest.approx(mean)


def test_bfloat16_has_a_tolerance_of_its_own_unless_the_file_was_changed(result: Result, tmp_path) -> None:
    half = dataclasses.replace(result, dtype="bfloat16")
    path = str(half.save(tmp_path / "image.png"))
    other = Image.new("RGB", half.image.size, (255, 105 + BFLOAT16_TOLERANCE, 180))
    assert compare(path, record(half), other, "bfloat16").agrees
    assert not compare(path, record(half), other, "float32").agrees
    assert not compare(path, {**record(half), "pixels": "0"}, other, "bfloat16").agrees


def test_single_pixels_in_bfloat16_may_differ_by_more(result: Result, tmp_path) -> None:
    half = dataclasses.replace(result, dtype="bfloat16", image=Image.new("RGB", (64, 64), (255, 105, 180)))
    path = str(half.save(tmp_path / "image.png"))
    change = BFLOAT16_TOLERANCE + 10
    other = half.image.copy()
    other.putpixel((0, 0), (255, 105 + change, 180))
    assert compare(path, record(half), other, "bfloat16").agrees
    assert not compare(path, record(half), other, "float32").agrees
    other.paste((255, 105 + change, 180), (0, 0, 64, 1))  # a whole row: no rounding
    found = compare(path, record(half), other, "bfloat16")
    assert found.difference == change and not found.agrees and found.rms == pytest.approx(change / (3 * 64) ** 0.5)


def test_lossy_files_are_compared_by_the_hash_in_their_record(result: Result, tmp_path) -> None:
    path = str(result.save(tmp_path / "image.jpg"))
    assert compare(path, record(result), result.image) == Comparison(True, 0, 0.0)
    assert compare(path, record(result), Image.new("RGB", (8, 8))) == Comparison(False, None, None)


def test_damaged_and_resized_files_are_refused(result: Result, tmp_path) -> None:
    path = result.save(tmp_path / "image.png")
    with pytest.raises(DataError, match="is 8x8 pixels, its record says 4x4; the file was changed"):
        compare(str(path), record(result), Image.new("RGB", (4, 4)))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="is not a readable image"):
        compare(str(path), record(result), result.image)


def test_the_transparency_of_a_file_is_compared(result: Result, tmp_path) -> None:
    image = result.image.convert("RGBA")
    image.putpixel((3, 3), (1, 2, 3, 100))
    clear = dataclasses.replace(result, image=image, dtype="bfloat16")
    path = str(clear.save(tmp_path / "image.png"))
    assert compare(path, record(clear), image, "bfloat16") == Comparison(True, 0, 0.0, bfloat16=True)
    other = image.copy()
    other.putpixel((3, 3), (1, 2, 3, 200))
    assert compare(path, record(clear), other).difference == 100
