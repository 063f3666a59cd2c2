"""Prompts without images."""

from pathlib import Path

import pytest
import torch

from unclip.errors import DataError
from unclip.training.data.datasets import open_dataset


def test_every_epoch_has_each_prompt_once_in_an_order_of_its_own(tmp_path: Path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dog \n" + "\n".join(f"prompt {i}" for i in range(8)))
    data = open_dataset({"kind": "prompts", "path": str(path)}, 8, seed=3)
    epochs = [[data[i][1] for i in range(10 * epoch, 10 * epoch + 10)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted({"a cat", "a dog", *(f"prompt {i}" for i in range(8))})
    assert epochs[0] != epochs[1] and [data[i][1] for i in range(10)] == epochs[0]
    image = data[0][0]
    assert image.shape == (3, 8, 8) and image.dtype == torch.uint8


@pytest.mark.parametrize(
    ("content", "says"), [(b"\n \n", "has no prompts: write one"), (b"caf\xe9", "not UTF-8"), (None, "cannot be read")]
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes | None, says: str):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        open_dataset({"kind": "prompts", "path": str(path)}, 8, seed=0)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
