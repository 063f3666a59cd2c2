import pytest
from PIL import Image

from unclip.errors import RequestError
from unclip.requests.sources import check_is_no_file, named_kind, source_kind


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


@pytest.mark.parametrize("name", ["photo.heic", "LICENSE", "my notes.txt"])
def test_the_name_of_a_file_is_no_prompt(tmp_path, monkeypatch, name) -> None:
    (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError, match=f"^prompt '{name}' is the name of a file; say in words"):
        check_is_no_file("prompt", name, tmp_path)
    check_is_no_file("prompt", f"an image of {name}", tmp_path)
    for text in ("folder", "", "a\0b", "x" * 100_000, "missing.txt"):
        check_is_no_file("prompt", text, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="^left_prompt "):
        check_is_no_file("left_prompt", name)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("b.gif", "image"),
        ("photos/a cat.JPEG ", "image"),
        ("a.heic", "unread"),
        ("e.safetensors", "embedding"),
        ("a cat", None),
        ("a cat. gif", None),
        (".png", None),
        ("a png.", None),
        ("", None),
    ],
)
def test_texts_that_end_like_the_name_of_a_file(text, kind) -> None:
    assert named_kind(text) == kind
