"""Images that the tests of several modes start from."""

import pytest
from PIL import Image

from unclip.pipeline import Unclip


@pytest.fixture(scope="session")
def cat(tiny: Unclip) -> Image.Image:
    return tiny.generate("a red cat", seed=3, size=16)[0].image


@pytest.fixture(scope="session")
def dog(tiny: Unclip) -> Image.Image:
    return tiny.generate("a blue dog", seed=4, size=16)[0].image
