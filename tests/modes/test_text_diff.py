from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers import difference
from unclip.embeddings.algebra import text_diff
from unclip.errors import RequestError
from unclip.images.processing import to_images, to_tensor
from unclip.inference.conditions import Conditioning, Start
from unclip.inference.run_context import Run
from unclip.modes.base import sampling_options
from unclip.pipeline import Unclip

FEW = {"steps": 4, "size": 16}  # of inversions that need not be close


def test_theta_zero_reconstructs_and_a_larger_theta_approaches_the_prompt(tiny: Unclip, cat: Image.Image) -> None:
    results = tiny.edit(cat, "a blue dog", from_prompt="a red cat", frames=3, theta=0.5, seed=5, **FEW)
    assert [r.request.theta for r in results] == [0.0, 0.25, 0.5]
    assert difference(results[0], tiny.reconstruct(cat, **FEW)[0]) <= 1
    assert difference(results[2], results[0]) > 5
    there, here = tiny.model.encode_text(["a blue dog", "a red cat"]).embed.split(1)
    image = tiny.embed_image(cat)
    turned = text_diff(image, there, here, 0.5)
    torch.testing.assert_close(turned.norm(), image.norm())
    away = torch.nn.functional.normalize(there, dim=-1) - torch.nn.functional.normalize(here, dim=-1)
    likeness = [float(torch.cosine_similarity(embed, away)) for embed in (image, turned)]
    assert likeness[1] > likeness[0]


def test_an_edit_towards_an_embedding_starts_at_the_images_own(tiny: Unclip, cat, dog, tmp_path: Path) -> None:
    file = tiny.save_embedding(tmp_path / "dog.safetensors", dog)
    results = tiny.edit(cat, embedding=file, frames=3, theta=0.5, seed=5, **FEW)
    assert difference(results[0], tiny.reconstruct(cat, **FEW)[0]) <= 1
    assert difference(results[2], results[0]) > 5
    own = tiny.edit(cat, embedding=tiny.save_embedding(tmp_path / "cat.safetensors", cat), theta=0.5, seed=5, **FEW)
    assert difference(own[0], results[0]) <= 1  # from itself there is no way to go
    [there] = tiny.edit(cat, embedding=file, theta=1, seed=5, **FEW)
    nothing, noise = tiny.model.encode_text([""]), [torch.Generator()]
    run = Run(noise, tiny.model.device, sampling_options(there.request))
    own, other = (Conditioning(tiny.embed_image(image), nothing, nothing) for image in (cat, dog))
    own_noise = tiny.model.invert(to_tensor(cat)[None], own, run)
    x = tiny.model.sample(other, run, start=Start(own_noise))
    assert difference(there, to_images(x)[0]) <= 1  # all the way: its embedding, in this picture's noise
    assert there.request.embedding == str(file)
    asked = [there.request, tiny.edit(cat, "a blue dog", theta=0.5, seed=5, **FEW)[0].request]
    both = tiny.generate(asked)  # in one batch
    assert difference(both[0], there) <= 1 and difference(both[1], tiny.generate(asked[1])[0]) <= 1
    likeness = torch.cosine_similarity(tiny.embed_image(results[0].image), tiny.embed_image(dog)).item()
    assert likeness < 0.95
    assert results[0].score == pytest.approx(likeness, abs=0.02)  # to where it goes, as with a prompt
    for prompts in ({"prompt": "a blue dog"}, {"from_prompt": "a red cat"}):
        with pytest.raises(RequestError, match="leave out the prompts"):
            tiny.edit(cat, embedding=file, **prompts)
    with pytest.raises(RequestError, match="prompt is empty"):
        tiny.edit(cat)
