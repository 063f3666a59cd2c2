import os

import pytest
from PIL import Image

from unclip.images import metadata
from unclip.images.result import Result
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
