import dataclasses
import io
import os

import pytest
from PIL import Image

from unclip.images import metadata
from unclip.images.contact_sheet import layout
from unclip.images.result import Result, Results
from unclip.requests.request import Request


def test_save_writes_the_record_and_replaces_files(result: Result, tmp_path):
    path = tmp_path / "new" / "image.png"
    assert result.save(path) == path
    result.save(path)
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.getpixel((3, 3)) == (255, 105, 180)
    assert Request.from_dict(metadata.read(path)["request"]) == result.request


def test_a_failed_save_leaves_nothing(result: Result, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        result.save(tmp_path / "image.png")
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_shows_a_result_with_its_record(result):
    with Image.open(io.BytesIO(result._repr_png_())) as image:
        assert image.tobytes() == result.image.tobytes() and "unclip" in image.info


def test_a_notebook_shows_a_list_as_a_sheet(result):
    others = [dataclasses.replace(result, image=Image.new("RGB", (8, 8), colour)) for colour in ("red", "lime", "blue")]
    results = Results([result, *others])
    with Image.open(io.BytesIO(results._repr_png_())) as image:
        colours = {colour for _, colour in image.getcolors()}
        assert {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 105, 180)} <= colours
        assert image.size == layout(4, (8, 8), labels=True).size
    assert isinstance(results[1:], Results) and results[1:] == others and results[0] is result
    assert Results([result])._repr_png_() == result._repr_png_() and Results()._repr_png_() is None
    large = Results([dataclasses.replace(result, image=Image.new("RGB", (600, 300)))] * 2)
    with Image.open(io.BytesIO(large._repr_png_())) as image:
        assert image.size == layout(2, (256, 256), labels=True).size
    assert Results([dataclasses.replace(result, image=Image.new("RGB", (256, 256)))] * 2000)._repr_png_() is None
