import pytest
from PIL import Image

from unclip.errors import RequestError
from unclip.requests.sources import check_is_prompt, source_kind


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("photo.png", "image"),
        ("folder/PHOTO.JPeG", "image"),
        ("cat.safetensors", "embedding"),
        ("a cat", "prompt"),
        ("a cat. A dog", "prompt"),
        (Image.new("RGB", (2, 2)), "image"),
    ],
)
def test_kind_of_a_source(source, kind) -> None:
    assert source_kind(source) == kind


def test_a_file_of_another_format_is_not_a_prompt(tmp_path) -> None:
    (tmp_path / "photo.heic").touch()
    (tmp_path / "cat").touch()
    with pytest.raises(RequestError, match="format that is not read"):
        check_is_prompt(str(tmp_path / "photo.heic"))
    check_is_prompt(str(tmp_path / "cat"))
    check_is_prompt(str(tmp_path / "missing.heic"))
