"""Variations, interpolations, text diffs and reconstructions through the public names, on a tiny model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.embeddings.algebra import text_diff
from unclip.embeddings.components import principal_components
from unclip.embeddings.files import write_components
from unclip.errors import DataError, RequestError
from unclip.images.processing import to_images, to_tensor
from unclip.images.result import Result
from unclip.inference.callbacks import Watcher
from unclip.inference.conditions import Conditioning, Start
from unclip.inference.run import Run
from unclip.modes.base import sampling_options
from unclip.pipeline import Unclip
from unclip.requests.request import Request

FEW = {"steps": 4, "size": 16}  # of inversions that need not be close


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> Unclip:
    """Draws 16 and 32 px."""
    return Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def cat(pipe: Unclip) -> Image.Image:
    return pipe.generate("a red cat", seed=3, size=16)[0].image


@pytest.fixture(scope="module")
def dog(pipe: Unclip) -> Image.Image:
    return pipe.generate("a blue dog", seed=4, size=16)[0].image


def difference(a: Image.Image | Result, b: Image.Image | Result) -> int:
    """The largest difference of two pictures, of 255."""
    a, b = (np.asarray(one.image if isinstance(one, Result) else one).astype(int) for one in (a, b))
    return int(np.abs(a - b).max())


# ---- reconstructions and variations


def test_a_picture_is_reconstructed_from_its_own_noise(pipe: Unclip, cat: Image.Image) -> None:
    [result] = pipe.reconstruct(cat, size=16, steps=40)
    assert difference(result, cat) <= 3
    assert result.score > 0.999
    assert (result.request.sampler, result.request.guidance) == ("ddim", 1.0)
    assert result.timings.keys() == {"inversion", "decoder"}


def test_no_strength_is_the_reconstruction_and_all_of_it_is_new(pipe: Unclip, cat: Image.Image) -> None:
    [again] = pipe.reconstruct(cat, **FEW)
    strengths = (0.0, 0.3, 0.9)
    results = [pipe.vary(cat, strength=strength, seed=1, **FEW)[0] for strength in strengths]
    assert difference(results[0], again) == 0
    assert [result.request.guidance for result in results] == pytest.approx([1.0, 1.3, 1.9])
    away = [np.abs(np.asarray(r.image).astype(int) - np.asarray(again.image)).mean() for r in results]
    assert away[0] < away[1] < away[2]
    new = pipe.vary(cat, n=2, seed=1, size=16)
    assert (new[0].request.strength, new[0].request.sampler, new[0].request.guidance) == (1.0, "dpmpp-2m", 2.0)
    assert difference(*new) > 20


def test_a_variation_is_the_picture_of_its_embedding(pipe: Unclip, cat: Image.Image, tmp_path: Path) -> None:
    file = pipe.save_embedding(tmp_path / "cat.safetensors", cat)
    [result] = pipe.generate(Request(embedding=file, seed=5, size=16))
    assert difference(result, pipe.vary(cat, seed=5, size=16)[0]) == 0


def test_a_prompt_is_read_beside_the_embedding(pipe: Unclip, cat: Image.Image) -> None:
    plain, said = (pipe.vary(cat, prompt, seed=1, size=16)[0] for prompt in ("", "a red cat"))
    assert difference(plain, said) > 5
    assert said.score == pytest.approx(pipe.score(said.image, "a red cat")[0], abs=0.03)
    assert difference(pipe.reconstruct(cat, "a red cat", size=16, steps=40)[0], cat) <= 3


@pytest.mark.parametrize(("fit", "said"), [("crop", "cropped to its middle 20x20"), ("pad", "was padded to 40x40")])
def test_a_picture_of_any_shape(pipe: Unclip, fit: str, said: str) -> None:
    wide = Image.new("RGB", (40, 20), (200, 30, 30))
    wide.paste((0, 0, 255), (15, 5, 25, 15))
    [result] = pipe.reconstruct(wide, fit=fit, **FEW)
    assert result.image.size == (16, 16)
    assert any(said in note for note in result.notes)
    square = Image.new("RGB", (40, 40) if fit == "pad" else (20, 20), (200, 30, 30))
    left, top = (15, 15) if fit == "pad" else (5, 5)
    square.paste((0, 0, 255), (left, top, left + 10, top + 10))
    [expected] = pipe.reconstruct(square, **FEW)
    assert difference(result, expected) == 0
    assert expected.notes == ()


# ---- interpolations and mixtures


def test_the_ends_of_an_interpolation_are_the_reconstructions(pipe: Unclip, cat, dog) -> None:
    results = pipe.interpolate(cat, dog, frames=3, seed=5, **FEW)
    assert [r.request.fraction for r in results] == [0.0, 0.5, 1.0]
    for picture, result in ((cat, results[0]), (dog, results[2])):
        assert difference(result, pipe.reconstruct(picture, **FEW)[0]) <= 1
    assert min(difference(results[1], end) for end in (results[0], results[2])) > 10


def test_a_frame_is_the_same_alone(pipe: Unclip, cat, dog) -> None:
    results = pipe.interpolate(cat, "a blue dog", frames=4, seed=5, **FEW)
    for result in (results[1], results[3]):
        assert result.request.frames is None
        assert difference(pipe.generate(result.request)[0], result) <= 1


def test_prompts_are_joined_by_one_noise_and_meet_what_they_draw(pipe: Unclip) -> None:
    results = pipe.interpolate("a red cat", "a blue dog", frames=3, seed=5, size=16, prior_best_of=1)
    assert (results[0].request.sampler, results[0].request.guidance) == ("dpmpp-2m", 2.0)
    text, nothing = pipe.model.encode_text(["a red cat"]), pipe.model.encode_text([""])
    request = pipe.resolve(Request(prompt="a red cat", seed=5, size=16, prior_best_of=1))
    noise = [torch.Generator().manual_seed(5)]
    embed = pipe.model.sample_prior(text, nothing, Run(noise, pipe.model.device, sampling_options(request)))
    torch.randn(1, 16, generator=noise[0])  # of the other prompt
    run = Run(noise, pipe.model.device, sampling_options(request))
    [x] = pipe.model.sample(Conditioning(embed, nothing, nothing), run)
    assert difference(results[0], to_images(x[None])[0]) <= 1


def test_words_that_the_model_does_not_know_are_told_of_all_prompts(pipe: Unclip, cat: Image.Image) -> None:
    [result] = pipe.interpolate("a red wizard", "a blue dog", frames=None, seed=5, size=16)
    assert result.notes == ("tiny does not know 'wizard': see `unclip models show tiny --vocabulary`",)
    [result] = pipe.edit(cat, "a dog", from_prompt="a unicorn", seed=5, **FEW)
    assert any("does not know 'unicorn'" in note for note in result.notes)


def test_one_noise_for_pictures_too(pipe: Unclip, cat, dog) -> None:
    first, last = pipe.interpolate(cat, dog, frames=2, seed=5, same_noise=True, size=16)
    for picture, result in ((cat, first), (dog, last)):
        assert difference(result, pipe.vary(picture, seed=5, size=16)[0]) == 0


def test_a_mixture_by_weights(pipe: Unclip, cat, dog) -> None:
    [between] = pipe.interpolate(cat, dog, frames=None, fraction=0.25, seed=5, **FEW)
    assert difference(pipe.mix([cat, dog], [3, 1], seed=5, **FEW)[0], between) <= 1
    three = [
        pipe.mix(order, [1, 1, 1], seed=5, **FEW)[0] for order in ([cat, dog, "a red cat"], [dog, cat, "a red cat"])
    ]
    assert difference(*three) <= 2
    assert difference(three[0], between) > 5


# ---- text diffs


def test_no_turn_is_the_reconstruction_and_a_turn_goes_towards_the_prompt(pipe: Unclip, cat: Image.Image) -> None:
    results = pipe.edit(cat, "a blue dog", from_prompt="a red cat", frames=3, theta=0.5, seed=5, **FEW)
    assert [r.request.theta for r in results] == [0.0, 0.25, 0.5]
    assert difference(results[0], pipe.reconstruct(cat, **FEW)[0]) <= 1
    assert difference(results[2], results[0]) > 5
    there, here = pipe.model.encode_text(["a blue dog", "a red cat"]).embed.split(1)
    image = pipe.embed_image(cat)
    turned = text_diff(image, there, here, 0.5)
    torch.testing.assert_close(turned.norm(), image.norm())
    away = torch.nn.functional.normalize(there, dim=-1) - torch.nn.functional.normalize(here, dim=-1)
    likeness = [float(torch.cosine_similarity(embed, away)) for embed in (image, turned)]
    assert likeness[1] > likeness[0]


def test_a_turn_towards_an_embedding_starts_at_the_pictures_own(pipe: Unclip, cat, dog, tmp_path: Path) -> None:
    file = pipe.save_embedding(tmp_path / "dog.safetensors", dog)
    results = pipe.edit(cat, embedding=file, frames=3, theta=0.5, seed=5, **FEW)
    assert difference(results[0], pipe.reconstruct(cat, **FEW)[0]) <= 1
    assert difference(results[2], results[0]) > 5
    own = pipe.edit(cat, embedding=pipe.save_embedding(tmp_path / "cat.safetensors", cat), theta=0.5, seed=5, **FEW)
    assert difference(own[0], results[0]) <= 1  # from itself there is no way to go
    [there] = pipe.edit(cat, embedding=file, theta=1, seed=5, **FEW)
    nothing, noise = pipe.model.encode_text([""]), [torch.Generator()]
    run = Run(noise, pipe.model.device, sampling_options(there.request))
    own, other = (Conditioning(pipe.embed_image(image), nothing, nothing) for image in (cat, dog))
    own_noise = pipe.model.invert(to_tensor(cat)[None], own, run)
    x = pipe.model.sample(other, run, start=Start(own_noise))
    assert difference(there, to_images(x)[0]) <= 1  # all the way: its embedding, in this picture's noise
    assert there.request.embedding == str(file)
    asked = [there.request, pipe.edit(cat, "a blue dog", theta=0.5, seed=5, **FEW)[0].request]
    both = pipe.generate(asked)  # in one batch
    assert difference(both[0], there) <= 1 and difference(both[1], pipe.generate(asked[1])[0]) <= 1
    likeness = torch.cosine_similarity(pipe.embed_image(results[0].image), pipe.embed_image(dog)).item()
    assert likeness < 0.95
    assert results[0].score == pytest.approx(likeness, abs=0.02)  # to where it goes, as with a prompt
    for prompts in ({"prompt": "a blue dog"}, {"from_prompt": "a red cat"}):
        with pytest.raises(RequestError, match="leave out the prompts"):
            pipe.edit(cat, embedding=file, **prompts)
    with pytest.raises(RequestError, match="prompt is empty"):
        pipe.edit(cat)


# ---- principal components


def test_pictures_from_ever_more_components(tmp_path: Path, cat: Image.Image, pipe: Unclip) -> None:
    with pytest.raises(RequestError, match="tiny has no principal components yet: make them with `unclip models comp"):
        pipe.reconstruct(cat, components=[3])
    other = Unclip(replace(pipe.model, folder=tmp_path))
    write_components(tmp_path, principal_components([torch.randn(100, 16, generator=torch.Generator().manual_seed(0))]))
    results = other.reconstruct(cat, components=[2, 16], seed=5, size=16)
    assert [r.request.components for r in results] == [(2,), (16,)]
    assert [r.seed for r in results] == [5, 5]
    assert difference(results[1], pipe.vary(cat, seed=5, size=16)[0]) <= 1  # all of them are the embedding
    assert difference(*results) > 5


# ---- ranking


def test_the_best_candidates_come_out_in_order(pipe: Unclip) -> None:
    all_of_them = pipe.generate("a red cat", n=5, seed=7, size=16)
    order = sorted(all_of_them, key=lambda result: -result.score)
    best = pipe.generate("a red cat", n=2, best_of=5, seed=7, size=16)
    for result, expected in zip(best, order, strict=False):
        assert (result.seed, result.request) == (expected.seed, expected.request)
        assert difference(result, expected) <= 1
        assert result.ranked == pytest.approx([r.score for r in order], abs=1e-3)
    [alone] = pipe.generate(best[1].request)
    assert alone.ranked == () and difference(alone, best[1]) <= 1


def test_candidates_are_drawn_once_however_small_the_batches(pipe: Unclip) -> None:
    seen: list[int] = []

    class Eye(Watcher):
        def see(self, stage, images, seeds) -> None:
            seen.extend(seeds if stage == "decoder" else [])

    requests = [Request(prompt=prompt, n=3, best_of=4, seed=5, size=16, steps=1) for prompt in ("a cat", "a dog")]
    results = pipe.generate(requests, batch_size=2, progress=Eye())
    assert sorted(seen) == sorted([5, 6, 7, 8] * 2)
    whole = pipe.generate(requests, batch_size=16)
    assert [result.seed for result in results] == [result.seed for result in whole]
    assert [result.ranked for result in results] == [pytest.approx(result.ranked, abs=1e-4) for result in whole]
    assert [result.timings["decoder"] > 0 for result in results] == [True] * 6


def test_one_candidate_is_no_ranking(pipe: Unclip, cat: Image.Image) -> None:
    for fields in ({"prompt": "a red cat"}, {"mode": "vary", "image": cat}):
        [ranked] = pipe.generate(Request(**fields, seed=7, size=16, best_of=1))
        [plain] = pipe.generate(Request(**fields, seed=7, size=16))
        assert (ranked.request, difference(ranked, plain)) == (plain.request, 0)


# ---- batches, and what cannot be


def test_a_batch_of_other_pictures_prompts_and_seeds(pipe: Unclip, cat, dog) -> None:
    """Each comes out as it does alone, whatever it shares a batch with."""
    requests = [
        Request(mode="interpolate", sources=(cat, "a dog"), fraction=0.3, seed=1, **FEW),
        Request(mode="interpolate", sources=("a red cat", dog), fraction=0.6, seed=2, prompt="a cat", **FEW),
        Request(mode="interpolate", sources=(cat, dog, cat), weights=(1, 2, 1), seed=3, **FEW),
        Request(mode="interpolate", sources=("a red cat", "a dog"), seed=3, **FEW),
        Request(mode="edit", image=cat, prompt="a dog", seed=3, **FEW),
        Request(mode="edit", image=dog, prompt="a cat", theta=0.1, seed=4, **FEW),
    ]
    for request, together in zip(requests, pipe.generate(requests), strict=True):
        assert difference(pipe.generate(request)[0], together) <= 1


def test_an_embedding_guides_an_edit_in_the_priors_place(pipe: Unclip, cat, dog, tmp_path: Path) -> None:
    mask = Image.new("L", (16, 16), 255)
    files = [pipe.save_embedding(tmp_path / f"{i}.safetensors", picture) for i, picture in enumerate((cat, dog))]
    drawn = [pipe.inpaint(cat, mask, "a cat", seed=5, embedding=file)[0] for file in files]
    assert difference(*drawn) > 5
    requests = [d.request for d in drawn]
    assert all(difference(a, b) <= 1 for a, b in zip(pipe.generate(requests), drawn, strict=True))


def test_what_is_wrong_is_said_before_anything_is_drawn(pipe: Unclip, cat, tmp_path: Path) -> None:
    for fields, error, says in [
        ({"mode": "vary", "image": "none.png"}, DataError, "cannot read the image 'none.png'"),
        ({"mode": "interpolate", "sources": [cat, "none.jpg"]}, DataError, "none.jpg"),
        ({"mode": "interpolate", "sources": [cat, "none.safetensors"]}, DataError, "none.safetensors"),
        ({"embedding": "none.safetensors"}, DataError, "none.safetensors"),
        ({"mode": "vary", "image": cat, "size": 48}, RequestError, "does not generate images of 48x48"),
    ]:
        with pytest.raises(error, match=says):
            pipe.stream([Request(prompt="a cat"), Request(**fields)])


def test_a_model_without_an_image_tower_says_what_to_add(tiny_model: Path, cat: Image.Image) -> None:
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
