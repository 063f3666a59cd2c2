from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers import difference
from unclip.embeddings.files import write_components
from unclip.embeddings.principal_components import principal_components
from unclip.errors import RequestError
from unclip.pipeline import Unclip


def test_an_image_is_reconstructed_from_its_own_noise(tiny: Unclip, cat: Image.Image) -> None:
    [result] = tiny.reconstruct(cat, size=16, steps=40)
    assert difference(result, cat) <= 3
    assert result.score > 0.999
    assert (result.request.sampler, result.request.guidance) == ("ddim", 1.0)
    assert result.timings.keys() == {"inversion", "decoder"}


def test_reconstruction_from_more_components(tmp_path: Path, cat: Image.Image, tiny: Unclip) -> None:
    with pytest.raises(RequestError, match="tiny has no principal components yet: make them with `unclip models comp"):
        tiny.reconstruct(cat, components=[3])
    other = Unclip(replace(tiny.model, folder=tmp_path))
    write_components(tmp_path, principal_components([torch.randn(100, 16, generator=torch.Generator().manual_seed(0))]))
    results = other.reconstruct(cat, components=[2, 16], seed=5, size=16)
    assert [r.request.components for r in results] == [(2,), (16,)]
    assert [r.seed for r in results] == [5, 5]
    assert difference(results[1], tiny.vary(cat, seed=5, size=16)[0]) <= 1  # all of them are the embedding
    assert difference(*results) > 5
