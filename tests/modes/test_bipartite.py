"""What the modes that decode an embedding have in common."""

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import difference
from unclip.errors import DataError, RequestError
from unclip.pipeline import Unclip
from unclip.requests.fields import MAX_SIDE
from unclip.requests.request import Request

FEW = {"steps": 4, "size": 16}  # of inversions that need not be close


@pytest.mark.parametrize(("fit", "said"), [("crop", "cropped to its middle 20x20"), ("pad", "was padded to 40x40")])
def test_images_of_any_shape_are_cropped_or_padded(tiny: Unclip, fit: str, said: str) -> None:
    wide = Image.new("RGB", (40, 20), (200, 30, 30))
    wide.paste((0, 0, 255), (15, 5, 25, 15))
    [result] = tiny.reconstruct(wide, fit=fit, **FEW)
    assert result.image.size == (16, 16)
    assert any(said in note for note in result.notes)
    square = Image.new("RGB", (40, 40) if fit == "pad" else (20, 20), (200, 30, 30))
    left, top = (15, 15) if fit == "pad" else (5, 5)
    square.paste((0, 0, 255), (left, top, left + 10, top + 10))
    [expected] = tiny.reconstruct(square, **FEW)
    assert difference(result, expected) == 0
    assert expected.notes == ()


def test_a_batch_of_different_images_prompts_and_seeds(tiny: Unclip, cat, dog) -> None:
    """Each result equals the one generated alone."""
    requests = [
        Request(mode="interpolate", sources=(cat, "a dog"), fraction=0.3, seed=1, **FEW),
        Request(mode="interpolate", sources=("a red cat", dog), fraction=0.6, seed=2, prompt="a cat", **FEW),
        Request(mode="interpolate", sources=(cat, dog, cat), weights=(1, 2, 1), seed=3, **FEW),
        Request(mode="interpolate", sources=("a red cat", "a dog"), seed=3, **FEW),
        Request(mode="edit", image=cat, prompt="a dog", seed=3, **FEW),
        Request(mode="edit", image=dog, prompt="a cat", theta=0.1, seed=4, **FEW),
    ]
    for request, together in zip(requests, tiny.generate(requests), strict=True):
        assert difference(tiny.generate(request)[0], together) <= 1


def test_a_model_without_an_image_encoder_names_the_option_that_adds_one(tiny_model: Path, cat: Image.Image) -> None:
    pipe = Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32")
    pipe.model.clip.visual = None
    for request in (
        Request(mode="vary", image=cat),
        Request(mode="interpolate", sources=(cat, "a cat")),
        Request(prompt="a cat", best_of=2),
    ):
        with pytest.raises(RequestError, match="tiny has no image encoder.*--image-encoder"):
            pipe.stream(request)
    assert len(pipe.interpolate("a cat", "a dog", frames=2, size=16)) == 2  # needs none


def test_images_of_any_size_are_sources(tiny: Unclip, tmp_path: Path) -> None:
    file = tmp_path / "long.jpg"
    Image.new("RGB", (MAX_SIDE + 900, 50), "red").save(file)
    results = [
        *tiny.vary(file, seed=1, size=16),
        *tiny.interpolate(file, "a cat", frames=None, seed=1, size=16),
        *tiny.edit(file, "a cat", seed=1, steps=4, size=16),
        *tiny.reconstruct(file, fit="pad", steps=4, size=16),
    ]
    assert all(f"the image, {MAX_SIDE + 900}x50, was" in result.notes[-1] for result in results)
    tiny.save_embedding(tmp_path / "long.safetensors", str(file))
    with pytest.raises(DataError, match="sides may have at most 8192 pixels"):
        tiny.outpaint(file, "a cat", right=4)
