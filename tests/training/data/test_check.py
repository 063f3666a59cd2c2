"""The check of stored data before a run."""

from pathlib import Path

import pytest

from tests.training.data.helpers import encoded, flat
from unclip.errors import DataError
from unclip.training.data.check import check_listing
from unclip.training.data.datasets import make_dataset, open_source, read_sample
from unclip.training.data.stored import CaptionedImages, Listing


@pytest.fixture
def spoiled(folder: Path) -> Path:
    """The ten images, of which three have bad headers or captions, one has none, and one is cut off."""
    (folder / "0.png").write_bytes(b"not an image")
    (folder / "2.txt").write_text("")
    (folder / "sub" / "3.txt").write_bytes(b"caf\xe9")
    (folder / "4.txt").unlink()
    (folder / "6.png").write_bytes((folder / "6.png").read_bytes()[:44])
    return folder


def check(folder: Path, **options) -> tuple[Listing | None, str, list[str]]:
    """What the check returns, its error, and the faults, each as the file's name in the folder."""
    source, lines = open_source({"kind": "folder", "path": str(folder)}), []
    assert isinstance(source, Listing)
    error, checked = "", None
    try:
        checked = check_listing(source, "mine.toml [data]", lines.append, **options)
    except DataError as caught:
        error = str(caught)
    return (
        checked,
        error,
        [line.replace("cannot read ", "").removeprefix(f"{folder}/")[:12].split(".")[0] for line in lines],
    )


def test_every_bad_file_is_listed(spoiled: Path):
    checked, error, faults = check(spoiled)
    assert checked is None and sorted(faults) == ["0", "2", "4", "sub/3"]
    assert error.startswith(f"mine.toml [data]: 4 bad files (first: {spoiled}/4.png: no caption; ")
    assert error.endswith("; mend or remove them, or add --skip-bad to pass over them") and "\n" not in error


def test_decoding_finds_files_that_are_cut_off(spoiled: Path):
    assert sorted(check(spoiled, decode=True)[2]) == ["0", "2", "4", "6", "sub/3"]


def test_bad_files_can_be_passed_over(spoiled: Path):
    checked, error, faults = check(spoiled, skip_bad=True, decode=True)
    assert checked is not None and not error and len(faults) == 5
    data = make_dataset(checked, 4, 0)
    assert isinstance(data, CaptionedImages) and {data[i][1] for i in range(5)} == {"1", "5", "7", "8", "9"}


def test_nothing_is_left(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "a.txt").write_text("a")
    assert "no image with a caption can be read" in check(tmp_path, skip_bad=True)[1]


def test_good_data_are_returned_whole(stored: CaptionedImages):
    listing = Listing("x", stored.samples)
    assert check_listing(listing, "x", pytest.fail, decode=True) == listing


def test_a_sample_that_cannot_be_decoded_is_replaced(folder: Path):
    (folder / "6.png").write_bytes((folder / "6.png").read_bytes()[:44])
    data = make_dataset(open_source({"kind": "folder", "path": str(folder)}), 4, 0)
    whole = [read_sample(data, i, skip_bad=True) for i in range(20)]
    assert [len(skipped) for _, skipped in whole].count(1) == 2  # once an epoch
    assert all("6.png" in skipped[0] for _, skipped in whole if skipped)
    assert {caption for (_, caption), _ in whole} == {str(n) for n in range(10) if n != 6}
    again = [read_sample(data, i, skip_bad=True)[0][1] for i in range(20)]
    assert again == [caption for (_, caption), _ in whole]
    with pytest.raises(DataError, match=r"6.png \("):
        [read_sample(data, i, skip_bad=False) for i in range(10)]


def test_substitutes_end(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encoded(flat(0))[:44])
    (tmp_path / "a.txt").write_text("a")
    data = make_dataset(open_source({"kind": "folder", "path": str(tmp_path)}), 4, 0)
    with pytest.raises(DataError, match=r"a.png .*; nor can 16 others be read$"):
        read_sample(data, 0, skip_bad=True)
