"""Fixtures: checkpoints of the published layout with random weights."""

from pathlib import Path

import pytest

from tests.published import SIZES, add_image_encoder, published


@pytest.fixture(scope="package")
def karlo(tmp_path_factory: pytest.TempPathFactory):
    """A function: key of SIZES -> checkpoint folder and diffusers pipeline, both read-only."""
    made: dict[str, tuple[Path, object]] = {}

    def make(name: str) -> tuple[Path, object]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            pipe = published(SIZES[name], folder)
            pipe.save_pretrained(folder / "karlo")
            made[name] = folder / "karlo", pipe
        return made[name]

    return make


@pytest.fixture(scope="package")
def variations(karlo, tmp_path_factory: pytest.TempPathFactory):
    """An image variation checkpoint, its image encoder, and the pipeline that it was made from."""
    import shutil

    folder, pipe = karlo("one")
    copy = Path(shutil.copytree(folder, tmp_path_factory.mktemp("models") / "variations"))
    encoder = add_image_encoder(copy, SIZES["one"])
    shutil.rmtree(copy / "prior")
    return copy, encoder, pipe
