"""What several tests use."""

import os
from pathlib import Path

import pytest
from PIL import Image

from unclip.images.result import Result
from unclip.requests.request import Request

os.environ["UNCLIP_CONFIG"] = os.devnull  # the settings of whoever runs the tests are not to change them


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with random weights, "tiny", that draws 16 and 32 px; not to be written to."""
    from tests.tiny import write_tiny_model  # only here is torch needed

    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


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
