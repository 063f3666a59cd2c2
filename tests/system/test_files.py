"""Reading files ahead, and checking folders."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from unclip.system.files import check_writable, read_ahead


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system offers no advice on files")
def test_files_are_read_ahead_unless_they_are_large_or_missing(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, start, length, advice: asked.append(length))
    for name, size in (("a", 3), ("b", 5)):
        (tmp_path / name).write_bytes(bytes(size))
    read_ahead(tmp_path.iterdir(), most=8)
    assert sorted(asked) == [3, 5]
    read_ahead(tmp_path.iterdir(), most=7)
    read_ahead([tmp_path / "missing"])
    assert len(asked) == 2


def test_a_folder_that_many_check_at_once_is_writable(tmp_path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(check_writable, [tmp_path / "new" / "runs"] * 400))
