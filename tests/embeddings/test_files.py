from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unclip.embeddings.files import read_components, read_embedding, write_components, write_embedding
from unclip.embeddings.principal_components import principal_components
from unclip.errors import CheckpointError, DataError
from unclip.system.resources import COMPONENTS

EMBED, PROBE = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def test_an_embedding_comes_back_and_its_file_says_what_made_it(tmp_path: Path) -> None:
    path = write_embedding(tmp_path / "e.safetensors", EMBED, PROBE, "stickers", "a cat — 猫")
    assert torch.equal(read_embedding(path, PROBE, "stickers"), EMBED)
    almost = PROBE * 1.001 + 1e-4  # another device, another precision
    assert torch.equal(read_embedding(path, almost, "stickers"), EMBED)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"clip": "stickers", "source": "a cat — 猫"}


@pytest.mark.parametrize("other", [PROBE.flip(0), PROBE + 0.1, torch.ones(9)])
def test_that_of_another_clip_is_refused(tmp_path: Path, other: torch.Tensor) -> None:
    path = write_embedding(tmp_path / "e.safetensors", EMBED, PROBE, "stickers", "a cat")
    with pytest.raises(DataError, match="was made by the CLIP of stickers, and karlo has another one: .*--model karlo"):
        read_embedding(path, other, "karlo")


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    save_file({"x": EMBED}, tmp_path / "other.safetensors")
    (tmp_path / "none.safetensors").write_bytes(b"no")
    for name, says in [("other", "holds no embedding"), ("none", "cannot read"), ("gone", "cannot read")]:
        with pytest.raises(DataError, match=says) as caught:
            read_embedding(tmp_path / f"{name}.safetensors", PROBE, "stickers")
        assert "\n" not in str(caught.value)


def test_components_lie_in_the_folder_of_their_checkpoint(tmp_path: Path) -> None:
    assert read_components(tmp_path, 8) is None
    made = principal_components([torch.randn(20, 8, generator=torch.Generator().manual_seed(1))])
    write_components(tmp_path, made)
    found = read_components(tmp_path, 8)
    assert torch.equal(found.mean, made.mean) and torch.equal(found.axes, made.axes)
    with pytest.raises(CheckpointError, match="does not fit this model: make it again with `unclip models components"):
        read_components(tmp_path, 9)
    (tmp_path / COMPONENTS).write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_components(tmp_path, 8)
