from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import difference
from unclip.pipeline import Unclip
from unclip.requests.request import Request

FEW = {"steps": 4, "size": 16}  # of inversions that need not be close


def test_strength_zero_reconstructs_and_strength_one_uses_new_noise(tiny: Unclip, cat: Image.Image) -> None:
    [again] = tiny.reconstruct(cat, **FEW)
    strengths = (0.0, 0.3, 0.9)
    results = [tiny.vary(cat, strength=strength, seed=1, **FEW)[0] for strength in strengths]
    assert difference(results[0], again) == 0
    assert [result.request.guidance for result in results] == pytest.approx([1.0, 1.3, 1.9])
    away = [np.abs(np.asarray(r.image).astype(int) - np.asarray(again.image)).mean() for r in results]
    assert away[0] < away[1] < away[2]
    new = tiny.vary(cat, n=2, seed=1, size=16)
    assert (new[0].request.strength, new[0].request.sampler, new[0].request.guidance) == (1.0, "dpmpp-2m", 2.0)
    assert difference(*new) > 20


def test_a_variation_equals_the_image_of_its_embedding(tiny: Unclip, cat: Image.Image, tmp_path: Path) -> None:
    file = tiny.save_embedding(tmp_path / "cat.safetensors", cat)
    [result] = tiny.generate(Request(embedding=file, seed=5, size=16))
    assert difference(result, tiny.vary(cat, seed=5, size=16)[0]) == 0


def test_a_prompt_conditions_the_decoder_along_with_the_embedding(tiny: Unclip, cat: Image.Image) -> None:
    plain, said = (tiny.vary(cat, prompt, seed=1, size=16)[0] for prompt in ("", "a red cat"))
    assert difference(plain, said) > 5
    assert said.score == pytest.approx(tiny.score(said.image, "a red cat")[0], abs=0.03)
    assert difference(tiny.reconstruct(cat, "a red cat", size=16, steps=40)[0], cat) <= 3
