"""What several tests use."""

import pytest
from PIL import Image

from unclip.request import Request, Result


@pytest.fixture
def result() -> Result:
    """A finished image that no model made."""
    return Result(
        image=Image.new("RGB", (8, 8), (255, 105, 180)),
        request=Request(prompt="a penguin — ペンギン", seed=7, size=8, guidance=0.0, sampler="ddim"),
        seed=7,
        model="stickers",
        score=0.25,
        timings={"prior": 0.1},
        notes=("unknown word: ペンギン",),
    )
