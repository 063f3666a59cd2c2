"""Likeness of images to the true renderings, their sharpness, blocks and diversity."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from tests.evaluation.stand_ins import StandIn, blank_image, new_suite, noise_image, perfect_model, suite_scenes
from unclip.evaluation.correctness import ORDER
from unclip.evaluation.likeness import (
    SEEDS,
    blockiness,
    compare,
    edge_sharpness,
    measure_likeness,
    rank_correlation,
    score_correlation,
    seed_difference,
)
from unclip.images.result import Result
from unclip.requests.request import Request
from unclip.stickers.prompts import sample_prompts
from unclip.stickers.render import render


def column(result: dict, name: str) -> list:
    """Return a column, without the categories of which there is no image."""
    kept = [row for row in result["rows"] if row.get("recognisable", row)]
    return [row[name] for row in kept if name in row]


def test_a_perfect_model_is_recognisable_sharp_and_without_blocks_but_not_diverse(tmp_path: Path) -> None:
    found = measure_likeness(new_suite(tmp_path, perfect_model(suite_scenes())))
    assert [row[""] for row in found["rows"]] == [*ORDER, "one object, by seed"]
    assert all(each["rate"] == 1 for each in column(found, "recognisable"))
    assert all(each["rate"] == 1 for each in column(found, "right and recognisable"))
    assert all(each["mean"] == pytest.approx(1, abs=0.1) for each in column(found, "sharpness, real = 1"))
    assert all(each["mean"] == pytest.approx(1, abs=0.3) for each in column(found, "blocks of 4 px, none = 1"))
    assert min(column(found, "median PSNR, dB")) > 25
    assert column(found, f"difference of {SEEDS} seeds")[0]["mean"] == 0
    assert column(found, "CLIP score against structure") == [None]  # eight equal images have no ranks


def test_noise_and_empty_images_are_not_recognisable(tmp_path: Path) -> None:
    def alike(_: Image.Image) -> torch.Tensor:
        return torch.ones(4)

    for name, generate in (("noise", noise_image), ("blank", blank_image)):
        found = measure_likeness(new_suite(tmp_path / name, StandIn(generate, suite_scenes(1), alike), n=1))
        rates = [each["rate"] for each in column(found, "recognisable")]
        assert len(rates) >= 3 and set(rates) == {0}


def test_a_blur_is_less_sharp_and_less_recognisable() -> None:
    [(_, scene)] = sample_prompts(1, 0, ["single"])
    image = Image.fromarray(render(scene, 128))
    likenesses = [compare(image.filter(ImageFilter.GaussianBlur(r)), scene, [8]) for r in (0, 1.5, 4)]
    psnrs, sharp = [each.psnr for each in likenesses], [each.sharpness for each in likenesses]
    assert psnrs == sorted(psnrs, reverse=True) and psnrs[0] > 30
    assert sharp == sorted(sharp, reverse=True) and sharp[0] == pytest.approx(1, abs=0.05) and sharp[2] < 0.5


def test_grain_makes_no_image_sharper() -> None:
    truth = render(sample_prompts(1, 0, ["single"])[0][1], 128).astype(np.float32) / 255
    grain = np.random.default_rng(0).normal(0, 0.1, truth.shape).astype(np.float32)
    assert edge_sharpness(truth + grain, truth) == pytest.approx(1, abs=0.1)
    assert edge_sharpness(np.full_like(truth, 0.5) + grain, truth) == pytest.approx(0, abs=0.1)


def test_blocks_are_found_at_their_size_only() -> None:
    steps = np.random.default_rng(0).normal(0, 0.1, (16, 16, 3)).repeat(8, 0).repeat(8, 1)
    assert blockiness(steps, 8) > 100
    assert blockiness(np.roll(steps, 3, (0, 1)), 8) < 1
    assert blockiness(np.zeros((64, 64, 3)), 8) == 1
    smooth = np.random.default_rng(0).normal(0, 0.1, (128, 128, 3))
    assert blockiness(smooth, 8) == pytest.approx(1, abs=0.1)


def test_seeds_that_differ_in_place_differ_more_than_those_that_differ_in_nothing() -> None:
    def place(x: int) -> Image.Image:
        image = Image.new("RGB", (64, 64), (250, 250, 248))
        image.paste((200, 0, 0), (x, 20, x + 16, 36))
        return image

    background = (250, 250, 248)
    assert seed_difference([place(4)] * 3, background) == 0
    assert seed_difference([place(4), place(24), place(44)], background) == pytest.approx(2**0.5, abs=0.01)


def test_images_of_seeds_come_from_one_request(tmp_path: Path) -> None:
    seen: list[Request] = []
    scenes = suite_scenes(1)
    model = StandIn(
        lambda request: (seen.append(request), Image.fromarray(render(scenes[request.prompt], 64)))[1], scenes
    )
    measure_likeness(new_suite(tmp_path, model, n=1))
    assert len({request.seed for request in seen}) >= SEEDS


def test_an_image_can_be_recognisable_and_wrong() -> None:
    [(_, scene)] = sample_prompts(1, 0, ["single"])
    other = replace(scene, background="blue" if scene.background != "blue" else "pink")
    likeness = compare(Image.fromarray(render(scene, 128)), other, [])
    assert not likeness.outcomes["background colour"] and likeness.outcomes["single object"]


def test_ranks_correlate() -> None:
    assert rank_correlation([1, 2, 3, 4], [0, 5, 6, 60]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [9, 5, 3, -1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [1, 2, 1, 2]) == pytest.approx(0)
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(3**0.5 / 2)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_a_score_that_falls_with_the_blur_ranks_as_the_likeness_does() -> None:
    [(_, scene)] = sample_prompts(1, 0, ["single"])
    image = Image.fromarray(render(scene, 128))
    blurs = (0, 2, 4, 7)

    def results(scores: tuple[float | None, ...]) -> list[Result]:
        images = [image.filter(ImageFilter.GaussianBlur(blur)) for blur in blurs]
        return [
            Result(image=each, request=Request(prompt="a", seed=0), seed=0, model="m", score=score)
            for each, score in zip(images, scores, strict=True)
        ]

    assert score_correlation(results((0.9, 0.8, 0.7, 0.6)), scene) == pytest.approx(1)
    assert score_correlation(results((0.6, 0.7, 0.8, 0.9)), scene) == pytest.approx(-1)
    assert score_correlation(results((None,) * 4), scene) is None
