"""Inpainting and outpainting through the public names, on a tiny model with random weights."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops

from tests.helpers import box_mask, difference, kept, noise_image, pixels
from unclip.diffusion.sampler_names import SAMPLER_NAMES
from unclip.errors import RequestError, UnclipError
from unclip.images.processing import to_images
from unclip.images.result import Result
from unclip.inference import run_context as inference_run
from unclip.inference.encoder import Encoder
from unclip.inference.model import UnclipModel
from unclip.inference.stage import Stage
from unclip.inference.stage_inputs import StageOptions
from unclip.pipeline import Unclip
from unclip.requests.request import Request

# ---- known pixels


@pytest.mark.parametrize("sampler", SAMPLER_NAMES)
@pytest.mark.parametrize("size", [(32, 32), (60, 40), (11, 17)])
def test_known_pixels_are_identical_in_the_file(tiny: Unclip, sampler: str, size, tmp_path: Path) -> None:
    image, mask = noise_image(*size), box_mask(size, (3, 2, 9, 8))
    [result] = tiny.inpaint(image, mask, "a cat", seed=1, sampler=sampler, prior_sampler=sampler)
    assert result.image.size == size
    with Image.open(result.save(tmp_path / "edited.png")) as written:
        assert kept(result, image, mask)
        assert np.array_equal(pixels(written), pixels(result))


def test_twenty_edits_change_only_masked_pixels(tiny: Unclip) -> None:
    image = original = noise_image(100, 64)
    touched = np.zeros((64, 100), bool)
    for i in range(20):
        left, top = 20 * (i % 5), 16 * (i // 5)
        mask = box_mask(image.size, (left, top, left + 9, top + 7))
        touched |= np.asarray(mask) > 0
        [result] = tiny.inpaint(image, mask, "a dog", seed=i, steps=2, prior_steps=1, upsampler_steps=1)
        image = result.image
    assert np.array_equal(pixels(image)[~touched], pixels(original)[~touched])
    assert (pixels(image)[touched] != pixels(original)[touched]).any(-1).mean() > 0.9


def test_a_mask_that_keeps_every_pixel_returns_the_image_with_a_note(tiny: Unclip) -> None:
    image = noise_image(50, 40)
    [result] = tiny.inpaint(image, Image.new("L", (50, 40), 0), "a cat", seed=1)
    assert np.array_equal(pixels(result), pixels(image))
    assert any("keeps every pixel" in note for note in result.notes)


def test_a_grey_mask_blends_once(tiny: Unclip) -> None:
    image, mask = noise_image(32, 32), Image.new("L", (32, 32), 255)  # no edge, at which colours are matched
    [whole], [half] = (
        tiny.inpaint(image, mask.point(lambda value, grey=grey: min(value, grey)), "a cat", seed=1)
        for grey in (255, 128)
    )
    between = pixels(image) + 128 / 255 * (pixels(whole) - pixels(image))
    assert np.abs(pixels(half) - between).max() <= 1


def test_a_full_mask_equals_text_to_image(tiny: Unclip) -> None:
    [edited] = tiny.inpaint(noise_image(32, 32), Image.new("L", (32, 32), 255), "a cat", seed=5)
    [generated] = tiny.generate("a cat", seed=5)
    assert np.abs(pixels(edited) - pixels(generated)).max() <= 1
    assert edited.score == pytest.approx(generated.score, abs=1e-2)


def test_a_wide_region_is_inpainted_in_several_windows(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_run, "time", SimpleNamespace(perf_counter=count().__next__))  # one tick per call
    image, reported = noise_image(200, 70), []
    mask = box_mask(image.size, (10, 5, 190, 60))
    request = Request(mode="inpaint", image=image, mask=mask, prompt="a cat", seed=1)
    [result] = tiny.generate(request, progress=lambda stage, done, total: reported.append(stage))
    assert kept(result, image, mask)
    names = {name.partition(",")[0] for name in reported if name.startswith("window")}
    assert len(names) > 5
    assert f"window 1 of {len(names)}" in names
    views = {name.partition(",")[0] for name in reported if name.startswith("context view")}
    assert len(views) > 1 and f"context view 1 of {len(views)}" in views
    assert result.timings["decoder"] == len(views) + 1  # by this clock: of all views, and of all windows as one
    assert result.timings["upsampler"] == len(names)
    assert result.timings["text"] == result.timings["prior"] == 1


def test_distant_masked_regions_are_inpainted_separately(tiny: Unclip) -> None:
    image, reported = noise_image(300, 70), []
    one, other = box_mask(image.size, (10, 5, 20, 20)), box_mask(image.size, (270, 40, 290, 60))
    both = ImageChops.lighter(one, other)
    requests = [Request(mode="inpaint", image=image, mask=mask, prompt="a cat", seed=1) for mask in (both, one)]
    [result, alone] = tiny.generate(requests, progress=lambda stage, done, total: reported.append(stage))
    assert kept(result, image, both)
    assert np.array_equal(pixels(result)[:, :100], pixels(alone)[:, :100])
    assert (pixels(result)[40:60, 270:290] != pixels(image)[40:60, 270:290]).any(-1).mean() > 0.9
    assert {name.partition(",")[0] for name in reported if "prior" not in name} == {"region 1 of 2", "region 2 of 2"}
    assert sum("prior" in name for name in reported) == 1 + tiny.model.prior.stage.steps  # once for all regions, from 0


def test_all_masked_regions_use_the_embedding_of_the_original_image(
    tiny: Unclip, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, seen, embed_images = noise_image(300, 70), [], Encoder.embed_images
    mask = ImageChops.lighter(box_mask(image.size, (10, 5, 20, 20)), box_mask(image.size, (270, 40, 290, 60)))
    monkeypatch.setattr(Encoder, "embed_images", lambda *own: (seen.extend(own[1]), embed_images(*own))[1])
    [result] = tiny.inpaint(image, mask, "", seed=1)
    assert kept(result, image, mask) and [np.array_equal(pixels(one), pixels(image)) for one in seen] == [True]


# ---- outpainting


@pytest.mark.parametrize(
    "margins", [{"right": 32}, {"left": 5, "top": 40}, {"size": (90, 50), "anchor": "bottom-right"}]
)
def test_outpainting_preserves_the_image_and_fills_the_margins(tiny: Unclip, margins) -> None:
    image = noise_image(32, 32)
    [result] = tiny.outpaint(image, "a cat", seed=2, **margins)
    left = margins.get("left", 58 if "size" in margins else 0)
    top = margins.get("top", 18 if "size" in margins else 0)
    generated = pixels(result)
    assert np.array_equal(generated[top : top + 32, left : left + 32], pixels(image))
    beyond = np.ones(generated.shape[:2], bool)
    beyond[top : top + 32, left : left + 32] = False
    assert (generated[beyond] == 0).all(-1).mean() < 0.05  # nothing of the empty canvas is left


def test_a_side_has_its_own_prompt(tiny: Unclip) -> None:
    image = noise_image(32, 32)

    def run(**prompts: str) -> np.ndarray:
        return pixels(tiny.outpaint(image, "a cat", seed=2, left=32, right=32, **prompts)[0])

    plain, other = run(), run(right_prompt="a blue dog")
    assert not np.array_equal(plain[:, 64:], other[:, 64:])


@pytest.mark.parametrize("right", [1, 8, 15, 16, 40])
def test_a_side_prompt_has_an_effect_for_any_margin(tiny: Unclip, right: int) -> None:
    image = noise_image(32, 32)
    [one], [other] = (tiny.outpaint(image, "a cat", seed=2, right=right, right_prompt=own) for own in (None, "a dog"))
    [alone] = tiny.outpaint(image, "", seed=2, right=right, right_prompt="a dog")
    assert not np.array_equal(pixels(one), pixels(other))
    assert np.array_equal(pixels(alone), pixels(other)) and alone.request.keep_style == 0


def test_sides_with_their_own_prompts_use_separate_windows(tiny: Unclip) -> None:
    sides = {"left": 16, "right": 16, "left_prompt": "a cat", "right_prompt": "a dog"}

    def run(width: int, **changes: str) -> Result:
        return tiny.outpaint(noise_image(width, 60), "a red cat", seed=2, **{**sides, **changes})[0]

    assert run(28).notes == ()  # a square canvas, which one window would see
    image = noise_image(28, 60)
    both = ({**sides, "right_prompt": own} for own in ("a dog", "a red cat"))
    one, other = (tiny.outpaint(image, "a red cat", seed=2, **fields)[0] for fields in both)
    assert not np.array_equal(pixels(one)[:, 44:], pixels(other)[:, 44:])
    small = tiny.outpaint(noise_image(10, 20), "a red cat", seed=2, left=5, right=5, right_prompt="a dog")[0]
    assert ["right_prompt was not used" in note for note in small.notes] == [True]


def test_a_long_image_is_scored_along_its_whole_length(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(Encoder, "score", lambda _, images, prompts: (seen.append(images), [0.1, 0.1, 0.6])[1])
    outpainter = Unclip(replace(tiny.model, shown_above=0.5))
    image = noise_image(70, 32)
    [result] = outpainter.outpaint(image, "a cat", seed=2, right=16)
    assert ["nothing was added" in note for note in result.notes] == [True]
    ends = [
        np.array_equal(pixels(one), pixels(image)[:, x : x + 32]) for one, x in zip(seen[0], (0, 19, 38), strict=True)
    ]
    assert ends == [True] * 3


def test_keep_style_applies_to_a_decoder_that_adds_only_the_prompt(tiny: Unclip) -> None:
    outpainter = Unclip(replace(tiny.model, shown_above=0.99))
    plain, styled = (
        outpainter.outpaint(noise_image(32, 32), "", seed=2, right=16, keep_style=weight)[0] for weight in (None, 1.0)
    )
    assert plain.request.keep_style is None and not np.array_equal(pixels(plain)[:, 32:], pixels(styled)[:, 32:])


def test_only_regions_without_a_prompt_need_an_image_encoder(tiny_model: Path) -> None:
    pipe = Unclip.from_pretrained(tiny_model, device="cpu", dtype="float32")
    pipe.model.clip.visual, image = None, noise_image(32, 32)
    short = {"steps": 1, "prior_steps": 1, "upsampler_steps": 1}
    assert pipe.outpaint(image, "", right=16, right_prompt="a cat", **short)[0].score is None
    for fields in (
        {"right": 16},
        {"prompt": "a cat", "left": 8, "left_prompt": ""},
        {"top": 8, "right": 16, "right_prompt": "a cat"},
    ):
        with pytest.raises(RequestError, match="no image encoder"):
            pipe.stream(Request(mode="outpaint", image=image, **fields))


def test_a_prompt_that_the_image_already_shows_is_not_used(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    image, asked = noise_image(32, 32), []

    def run(prompt: str, shown_above: float = 0.6, **fields) -> Result:
        own = Unclip(replace(tiny.model, shown_above=shown_above))
        return own.outpaint(image, prompt, seed=2, left=16, right=32, **fields)[0]

    def score(self, images, prompts) -> list[float]:
        asked.append((images, prompts))
        return [0.6]

    edited = run("a cat", shown_above=1.0)
    assert edited.notes == ()
    monkeypatch.setattr(Encoder, "score", score)
    assert np.array_equal(pixels(run("a cat", shown_above=0.61)), pixels(edited))
    bare = run("a cat")
    assert np.array_equal(pixels(asked[-2][0][0]), pixels(image)) and asked[-2][1] == [
        "a cat"
    ]  # the original was seen at
    assert not np.array_equal(pixels(bare), pixels(edited))
    assert np.array_equal(pixels(bare), pixels(run("two dogs")))  # nothing is added
    assert ["nothing was added" in note for note in bare.notes] == [True]
    silent = run("")
    assert np.array_equal(pixels(bare), pixels(silent)) and silent.notes == ()
    assert not np.array_equal(pixels(bare), pixels(run("", right_prompt="a cat")))
    # what a side's prompt says is edited, whatever is there already
    named = run("a cat", right_prompt="a cat", left_prompt="a cat")
    assert named.notes == () and np.array_equal(pixels(named), pixels(edited))
    assert np.array_equal(
        pixels(run("a cat", keep_style=0.5)), pixels(run("a cat", keep_style=0.5, right_prompt="a cat"))
    )


def test_an_inpainting_prompt_is_always_used(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = noise_image(32, 32), box_mask((32, 32), (4, 4, 28, 28))
    [edited] = tiny.inpaint(image, mask, "a cat", seed=3)
    monkeypatch.setattr(Encoder, "score", lambda self, images, prompts: [1.0])
    outpainter = Unclip(replace(tiny.model, shown_above=0.5))
    assert np.array_equal(pixels(outpainter.inpaint(image, mask, "a cat", seed=3)[0]), pixels(edited))


# ---- context views


def ramp(columns: int, rows: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """From -0.8 at `low` 0 to 0.8 at `high` 1, from the left to the right: `1 3 rows columns`."""
    at = low + (high - low) * (torch.arange(columns) + 0.5) / columns
    return (1.6 * at - 0.8).expand(1, 3, rows, columns)


@pytest.mark.parametrize(
    ("left", "right", "begin", "end"), [(0, 32, 16, 64), (32, 0, 0, 48), (16, 0, 0, 32), (0, 9, 16, 48)]
)  # the windows of each, on the grid of the latent
def test_windows_start_from_the_draft_and_are_placed_correctly(
    tiny: Unclip, monkeypatch: pytest.MonkeyPatch, left: int, right: int, begin: int, end: int
) -> None:
    """Everything generated continues the ramp of the original, and so must sketch, draft and image."""
    width = left + 32 + right
    whole = to_images(ramp(width, 32))[0]
    seen = []

    def decode(self, conditioning, run, known=None, start=None, tiling=None):
        draft = None if start is None else start.draft
        seen.append((known, draft, tiling))
        if tiling is None:  # a view as wide as the canvas
            return ramp(16, 16)
        assert draft.shape == (1, 3, 16, (end - begin) // 2)
        goes_on = ramp(draft.shape[-1], 16, begin / width, end / width)
        assert torch.allclose(draft, goes_on.clamp(max=0.8), atol=0.08)
        return goes_on

    def upsample(self, x, run, known=None):
        return F.interpolate(x, size=(32, 32), mode="bilinear")

    monkeypatch.setattr(UnclipModel, "decode", decode)
    monkeypatch.setattr(UnclipModel, "upsample", upsample)
    [result] = tiny.outpaint(whole.crop((left, 0, left + 32, 32)), "a cat", seed=1, left=left, right=right)
    assert np.abs(pixels(result) - pixels(whole)).max() <= 8
    (view, none, _), (known, draft, tiling) = seen
    assert none is None and (view.mask[0, 0, 8] == 1).float().mean().item() == pytest.approx(32 / width, abs=0.15)
    assert known.mask.shape[-2:] == draft.shape[-2:] == (16 * tiling.height // 4, 16 * tiling.width // 4)


def test_a_context_view_of_one_side_excludes_the_other_side(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, decode = [], UnclipModel.decode

    def spy(self, conditioning, run, known=None, start=None, tiling=None):
        seen.append((conditioning, known, tiling))
        return decode(self, conditioning, run, known, start, tiling)

    monkeypatch.setattr(UnclipModel, "decode", spy)
    sides = {"left": 32, "right": 32, "left_prompt": "a cat", "right_prompt": "a dog"}
    tiny.outpaint(noise_image(32, 32), "two birds", seed=2, **sides)
    *views, (conditioning, _, whole) = seen
    assert len(views) == 2 and all(tiling is None for _, _, tiling in views)
    masks = [known.mask[0, 0] for _, known, _ in views]  # 16 16: half of its width is the original
    assert all(mask[4:12].mean() == 0.5 and mask.mean() == 0.25 for mask in masks)
    assert {bool(mask[8, 0]) for mask in masks} == {True, False}
    assert len(conditioning.embed) == 2 and sorted(set(whole.rows)) == [0, 1]  # prompts, and windows of each


def test_one_window_per_side_needs_no_context_view(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    views = []
    sides = {"left": 16, "right": 16, "left_prompt": "a cat", "right_prompt": "a dog"}

    def run(tiny: Unclip = tiny, **more) -> None:
        request = Request(mode="outpaint", prompt="two birds", image=noise_image(32, 32), seed=2, **{**sides, **more})
        reported = []
        tiny.generate(request, progress=lambda stage, done, total: reported.append(stage))
        views.append(len({name for name in reported if name.startswith("context view")}))

    trained = Unclip(replace(tiny.model, shown_above=0.9))
    run()
    run(trained)
    run(trained, right=64)
    assert views[:2] == [2, 0] and views[2] > 2


def test_tiled_windows_receive_the_known_pixels_as_a_hint(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, run = [], Stage.run

    def spy(self, inputs, generators, options=None, known=None, *more, **named):
        seen.append((inputs, known))
        return run(self, inputs, generators, options or StageOptions(), known, *more, **named)

    monkeypatch.setattr(Stage, "run", spy)
    tiny.outpaint(noise_image(32, 32), "a cat", seed=2, right=32)
    [(inputs, known)] = [pair for pair in seen if pair[0].tiling is not None]
    hint, codec = inputs.canvas["hint"], tiny.model.decoder.codec
    channels = tiny.model.decoder.shape[0]
    mask = codec.encode_mask((known.mask == 1).float())
    assert torch.equal(hint[:, channels:], mask[:, : hint.shape[1] - channels]) and 0.2 < mask.mean() < 0.8
    assert torch.equal(hint[:, :channels], codec.encode(known.image) * mask)


def test_a_view_that_is_not_finite_is_refused(tiny: Unclip, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Stage.run

    def broken(self, inputs, *reported, **options):
        return run(self, inputs, *reported, **options) * (1 if inputs.tiling else float("nan"))

    monkeypatch.setattr(Stage, "run", broken)
    with pytest.raises(UnclipError, match="not finite"):
        tiny.outpaint(noise_image(32, 32), "", seed=2, right=32)


# ---- embeddings


def test_keep_style_mixes_the_embeddings_of_image_and_prompt(tiny: Unclip) -> None:
    image, mask = noise_image(32, 32), box_mask((32, 32), (4, 4, 28, 28))

    def run(prompt: str, **fields) -> Result:
        return tiny.inpaint(image, mask, prompt, seed=3, **fields)[0]

    results = [run("a cat", keep_style=weight) for weight in (0.0, 0.5, 1.0)]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not np.array_equal(pixels(results[a]), pixels(results[b]))
    assert np.array_equal(pixels(run("a cat")), pixels(results[0]))  # the default
    without_prompt = run("")
    assert without_prompt.request.keep_style == 1
    assert without_prompt.score is None
    other = tiny.inpaint(noise_image(32, 32), mask, "", seed=3)[0]
    masked = np.asarray(mask) > 0
    assert not np.array_equal(pixels(without_prompt)[masked], pixels(other)[masked])


def test_resampling_repeats_steps(tiny: Unclip) -> None:
    image, mask, steps = noise_image(32, 32), box_mask((32, 32), (4, 4, 28, 28)), []
    for resample in (1, 3):
        count = []
        request = Request(mode="inpaint", image=image, mask=mask, prompt="a cat", seed=1, resample=resample)
        tiny.generate(request, progress=lambda stage, done, total, c=count: c.append(total) if "dec" in stage else None)
        steps.append(count[-1])
    assert steps == [4, 10]  # 3 stretches of one step, thrice, and the last step


# ---- batches


def test_a_batch_of_different_images_masks_prompts_and_seeds(tiny: Unclip) -> None:
    """Each result equals the one generated alone; sizes and numbers of windows differ."""
    sizes = [(32, 32), (90, 40), (32, 50), (20, 20)]
    requests = [
        Request(
            mode="inpaint",
            image=noise_image(*size),
            mask=box_mask(size, (2, 2, size[0] - 4, 15)),
            prompt=prompt,
            seed=10 + i,
            keep_style=style,
        )
        for i, (size, prompt, style) in enumerate(
            zip(sizes, ["a cat", "a red dog", "", "a cat"], [0.0, 0.3, None, 1.0], strict=True)
        )
    ]
    together = tiny.generate(requests)
    backwards = tiny.generate(requests[::-1])[::-1]
    for request, one, other in zip(requests, together, backwards, strict=True):
        [alone] = tiny.generate(request)
        for result in (one, other):
            assert np.abs(pixels(alone) - pixels(result)).max() <= 1
        assert kept(alone, request.image, request.mask)


def test_a_batch_of_different_canvases(tiny: Unclip) -> None:
    sides = [{"right": 32}, {"left": 70, "top": 20, "left_prompt": "a dog"}, {"bottom": 9}, {"size": (32, 90)}]
    requests = [
        Request(mode="outpaint", image=noise_image(32, 32), prompt="a cat", seed=i, **each)
        for i, each in enumerate(sides)
    ]
    for request, result in zip(requests, tiny.generate(requests), strict=True):
        [alone] = tiny.generate(request)
        assert np.abs(pixels(alone) - pixels(result)).max() <= 1


def test_an_invalid_mask_raises_before_sampling(tiny: Unclip) -> None:
    good = Request(mode="inpaint", image=noise_image(32, 32), mask=box_mask((32, 32), (0, 0, 9, 9)), prompt="a cat")
    bad = Request(mode="inpaint", image=noise_image(32, 32), mask=box_mask((9, 9), (0, 0, 9, 9)), prompt="a cat")
    with pytest.raises(RequestError, match="the mask is 9x9"):
        tiny.stream([good, bad])  # before a result is requested


def test_an_embedding_replaces_the_prior_in_inpainting(tiny: Unclip, cat, dog, tmp_path: Path) -> None:
    mask = Image.new("L", (16, 16), 255)
    files = [tiny.save_embedding(tmp_path / f"{i}.safetensors", image) for i, image in enumerate((cat, dog))]
    generated = [tiny.inpaint(cat, mask, "a cat", seed=5, embedding=file)[0] for file in files]
    assert difference(*generated) > 5
    requests = [d.request for d in generated]
    assert all(difference(a, b) <= 1 for a, b in zip(tiny.generate(requests), generated, strict=True))
