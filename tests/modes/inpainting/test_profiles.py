"""Edits of images with colour profiles: kept pixels and the profile are preserved, and the model works in sRGB."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import box_mask, noise_image, pixels
from tests.images.profiles import cmyk_profile, grey_profile, rgb_profile
from unclip.images import metadata
from unclip.images.colour import ColourProfile
from unclip.images.compare import compare
from unclip.images.processing import to_images, to_tensor
from unclip.inference.encoder import Encoder
from unclip.inference.model import UnclipModel
from unclip.pipeline import Unclip
from unclip.requests.request import Request


@pytest.mark.parametrize("mode", ["inpaint", "outpaint"])
@pytest.mark.parametrize("format", ["png", "jpg", "webp"])
def test_the_colour_profile_of_the_image_is_preserved(tiny: Unclip, tmp_path: Path, mode: str, format: str) -> None:
    image = noise_image(32, 32)
    image.save(tmp_path / "input.png", icc_profile=rgb_profile())
    more = {"mask": box_mask((32, 32), (4, 4, 20, 20))} if mode == "inpaint" else {"right": 8}
    request = Request(mode=mode, image=tmp_path / "input.png", prompt="a cat", seed=1, **more)
    [result] = tiny.generate(request)
    assert result.notes == () and np.array_equal(pixels(result)[20:, :32], pixels(image)[20:])
    with Image.open(result.save(tmp_path / f"edited.{format}")) as written:
        assert written.info["icc_profile"] == rgb_profile()


def test_the_model_gets_srgb_and_its_pixels_are_converted_back(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask, profile = Image.new("RGB", (32, 32), (40, 200, 60)), box_mask((32, 32), (8, 8, 24, 24)), rgb_profile()
    image.info["icc_profile"] = profile
    generated = Image.new("RGB", (32, 32), (200, 60, 90))  # too different for colour matching
    seen, scored = [], []

    def sample(self, conditioning, run, known=None, start=None):
        seen.append(to_images(known.image)[0])
        return to_tensor(generated)[None]

    monkeypatch.setattr(UnclipModel, "sample", sample)
    monkeypatch.setattr(Encoder, "score", lambda self, images, prompts: scored.extend(images) or [0.5])
    [result] = tiny.inpaint(image, mask, "a cat", seed=1)
    convert = ColourProfile(profile)
    assert seen[0].getpixel((0, 0)) == scored[0].getpixel((0, 0)) == convert.to_srgb(image).getpixel((0, 0))
    assert result.image.getpixel((16, 16)) == convert.from_srgb(generated).getpixel((0, 0)) != (200, 60, 90)
    assert result.image.getpixel((0, 0)) == (40, 200, 60) and result.image.info["icc_profile"] == profile
    assert np.abs(np.array(scored[0].getpixel((16, 16))) - (200, 60, 90)).max() <= 2


def test_an_ignored_profile_is_noted_and_not_written(tiny: Unclip) -> None:
    image = noise_image(32, 32)
    image.info["icc_profile"] = b"damaged"
    [result] = tiny.outpaint(image, "a cat", seed=1, right=4)
    assert result.notes == ("the colour profile of the image is damaged, and is ignored",)
    assert "icc_profile" not in result.image.info and np.array_equal(pixels(result)[:, :32], pixels(image))


def test_an_edit_with_a_profile_is_reproduced(tiny: Unclip, tmp_path: Path) -> None:
    noise_image(32, 40).convert("L").save(tmp_path / "grey.png", icc_profile=grey_profile(2.2))
    request = Request(mode="outpaint", image=tmp_path / "grey.png", prompt="a cat", seed=1, left=9)
    path = tiny.generate(request)[0].save(tmp_path / "edited.png")
    record = metadata.read(path)
    [again] = tiny.generate(Request.from_dict(record["request"]))
    assert compare(str(path), record, again.image).identical
    assert again.image.info["icc_profile"] == Image.open(path).info["icc_profile"]


def test_the_score_is_of_the_visible_image(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    monkeypatch.setattr(Encoder, "score", lambda self, images, prompts: scored.extend(images) or [0.5])
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    tiny.outpaint(clear, "a cat", seed=1, right=4)
    assert scored[0].getpixel((5, 5)) == (255, 255, 255)


def test_a_cmyk_image_is_edited_in_srgb_with_a_note(tiny: Unclip, tmp_path: Path) -> None:
    noise_image(32, 32).convert("CMYK").save(tmp_path / "print.tiff", icc_profile=cmyk_profile())
    [result] = tiny.outpaint(tmp_path / "print.tiff", "a cat", seed=1, right=4)
    assert ["converted to sRGB" in note for note in result.notes] == [True]
    assert result.image.mode == "RGB" and "icc_profile" not in result.image.info


def test_variations_and_embeddings_are_of_the_srgb_image(tiny: Unclip, tmp_path: Path) -> None:
    image = noise_image(16, 16)
    image.save(tmp_path / "tagged.png", icc_profile=rgb_profile())
    ColourProfile(rgb_profile()).to_srgb(image).save(tmp_path / "plain.png")
    results = [tiny.vary(tmp_path / name, seed=1, strength=0.3)[0] for name in ("tagged.png", "plain.png")]
    assert np.array_equal(*map(pixels, results)) and "icc_profile" not in results[0].image.info
    with Image.open(tmp_path / "tagged.png") as tagged, Image.open(tmp_path / "plain.png") as plain:
        assert tiny.embed_image(tagged).equal(tiny.embed_image(plain))
        assert tiny.score(tagged, "a cat") == tiny.score(plain, "a cat")
