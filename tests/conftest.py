"""Fixtures of all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from unclip.images.result import Result
from unclip.requests.request import Request

if TYPE_CHECKING:
    from unclip.pipeline import Unclip

os.environ["UNCLIP_CONFIG"] = os.devnull  # the user's settings must not affect the tests
os.environ["UNCLIP_HISTORY"] = "false"  # nor may they write into the user's history
os.environ["OMP_NUM_THREADS"] = "1"  # on tensors as small as most tests have, threads cost 20 times what they gain
# Shells start background jobs with SIGINT ignored, and the tests of interrupts rely on Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model, for reading only: random weights, images of 16 and 32 px."""
    from tests.tiny import write_tiny_model  # imports torch, which many tests do not need

    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_model: Path) -> Unclip:
    """The pipeline of the tiny model, on the CPU in float32. Shared by all tests: do not change it or its networks."""
    from unclip.pipeline import Unclip

    return Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def tiny_second_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model with a second upsampler, for reading only: images of 16, 32 and 128 px."""
    from tests.tiny import add_second_upsampler, write_tiny_model

    return add_second_upsampler(write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-second"))


@pytest.fixture(scope="session")
def tiny_second(tiny_second_model: Path) -> Unclip:
    """The pipeline of that model, on the CPU in float32. Shared by all tests: do not change it or its networks."""
    from unclip.pipeline import Unclip

    return Unclip.from_pretrained(tiny_second_model, device="cpu", dtype="float32")


@pytest.fixture
def result() -> Result:
    """A result made without a model."""
    return Result(
        image=Image.new("RGB", (8, 8), (255, 105, 180)),
        request=Request(prompt="a penguin — ペンギン", seed=7, size=8, guidance=0.0, sampler="ddim"),
        seed=7,
        model="stickers",
        score=0.25,
        timings={"prior": 0.1},
        notes=("unknown word: ペンギン",),
    )
