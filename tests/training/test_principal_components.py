import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from unclip.cli.main import main
from unclip.embeddings.files import read_components
from unclip.errors import DataError
from unclip.pipeline import Unclip
from unclip.system.resources import COMPONENTS
from unclip.training.principal_components import images_in, make_components, scene_images


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_components_are_those_of_the_images_and_are_used_from_then_on(model: Path) -> None:
    pipe = Unclip.from_pretrained(model, "cpu", "float32")
    images = list(scene_images(70, 16, pipe.model.vocabulary))  # more than a batch
    assert make_components(pipe.embed_image, images, model) == model / COMPONENTS
    embeds = pipe.embed_image(images)
    found = read_components(model, 16)
    torch.testing.assert_close(found.mean, embeds.mean(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.project(embeds, 16), embeds, rtol=0, atol=1e-3)
    assert len(pipe.reconstruct(images[0], components=[1, 2], size=16)) == 2


def test_images_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, width in (("a/2.png", 20), ("1.JPG", 10), ("note.txt", 0)):
        if width:
            Image.new("RGB", (width, 10)).save(tmp_path / name)
        else:
            (tmp_path / name).touch()
    assert [image.size for image in images_in(tmp_path, 9)] == [(10, 10), (10, 10)]
    assert len(list(images_in(tmp_path, 1))) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images"):
        images_in(tmp_path / "empty", 9)
    with pytest.raises(DataError, match="cannot be read"):
        images_in(tmp_path / "none", 9)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_images_of_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "there" / "a.png")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there")
    assert len(list(images_in(tmp_path / "here", 9))) == 1


def test_the_command(model: Path, tmp_path: Path, capsys) -> None:
    arguments = ["models", "components", str(model), "--device", "cpu"]
    assert main([*arguments, "--count", "1"]) == 2
    assert "principal components need at least two images, not 1" in capsys.readouterr().err
    assert main([*arguments, "--count", "5"]) == 0
    assert capsys.readouterr().out == f"{model / COMPONENTS}\n"
    (model / "vocabulary.json").unlink()
    assert main(arguments) == 2
    assert "give images by --images FOLDER" in capsys.readouterr().err
